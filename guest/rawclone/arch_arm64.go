package rawclone

// cloneBackwards is CONFIG_CLONE_BACKWARDS: tls comes before child_tid.
const cloneBackwards = true

// sysFork and sysVFork are 0 where the architecture has no such call.
const (
	sysFork  = 0
	sysVFork = 0
)
