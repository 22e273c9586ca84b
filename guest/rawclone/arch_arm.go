package rawclone

import "golang.org/x/sys/unix"

// cloneBackwards is CONFIG_CLONE_BACKWARDS: tls comes before child_tid.
const cloneBackwards = true

// sysFork and sysVFork are 0 where the architecture has no such call.
const (
	sysFork  = unix.SYS_FORK
	sysVFork = unix.SYS_VFORK
)
