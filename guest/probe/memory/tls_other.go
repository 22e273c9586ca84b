//go:build !amd64

package memory

// A program reads the thread pointer of these architectures by an instruction, and needs no call.
const sysArchPrctl, archGetFS = 0, 0
