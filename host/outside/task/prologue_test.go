package task

import "testing"

// TestUnmade: the code is that of kernel_clone in kernels built with frame pointers: as
// compiled, with its call of __fentry__ made a NOP, a call of the tracer, and a breakpoint;
// with endbr64; and of a function that is not traced. The last two make no frame there.
func TestUnmade(t *testing.T) {
	const none = 99
	for _, tt := range []struct {
		name   string
		code   [prologue]byte
		offset uint64
		want   uint64 // what is pushed, none with a frame
	}{
		{"entry", [prologue]byte{0x0f, 0x1f, 0x44, 0, 0, 0x55, 0x48, 0x89, 0xe5, 0x41}, 0, 0},
		{"after the NOP", [prologue]byte{0x0f, 0x1f, 0x44, 0, 0, 0x55, 0x48, 0x89, 0xe5, 0x41}, 5, 0},
		{"after push", [prologue]byte{0x0f, 0x1f, 0x44, 0, 0, 0x55, 0x48, 0x89, 0xe5, 0x41}, 6, 8},
		{"after mov", [prologue]byte{0x0f, 0x1f, 0x44, 0, 0, 0x55, 0x48, 0x89, 0xe5, 0x41}, 9, none},
		{"in the tracer", [prologue]byte{0xe8, 1, 2, 3, 4, 0x55, 0x48, 0x89, 0xe5, 0x41}, 5, 0},
		{"after a breakpoint", [prologue]byte{0xcc, 0x1f, 0x44, 0, 0, 0x55, 0x48, 0x89, 0xe5, 0x41}, 1, 0},
		{"after endbr64", [prologue]byte{0xf3, 0x0f, 0x1e, 0xfa, 0x0f, 0x1f, 0x44, 0, 0, 0x55}, 4, 0},
		{"endbr64, after push", [prologue]byte{0xf3, 0x0f, 0x1e, 0xfa, 0x0f, 0x1f, 0x44, 0, 0, 0x55}, 10, 8},
		{"not traced", [prologue]byte{0x55, 0x48, 0x89, 0xe5, 0x41, 0x57}, 1, 8},
		{"not traced, with a frame", [prologue]byte{0x55, 0x48, 0x89, 0xe5, 0x41, 0x57}, 4, none},
		{"no frame, at its entry", [prologue]byte{0x48, 0x89, 0xf8, 0xc3}, 0, 0},
		{"no frame", [prologue]byte{0x48, 0x89, 0xf8, 0xc3}, 3, none},
	} {
		got, ok := unmade(tt.code, tt.offset)
		if !ok {
			got = none
		}
		if got != tt.want {
			t.Errorf("%s: %d, %t; want %d", tt.name, got, ok, tt.want)
		}
	}
}
