package wire

import "slices"

// ProgramDir is where programs from the host are in the guest. A sandbox has it,
// to read from only.
const ProgramDir = "/run/labctl"

// CarriedFile is a tar archive in the initramfs, of files that would take long over the
// link. labinit unpacks it below the root, and removes it.
const CarriedFile = "/labctl/files.tar"

// EndMark is what the agent leaves in the capture after ExecParams.Mark's program
// has ended, with ExecParams.Watch.
func EndMark(mark string) string { return mark + " end" }

// Sandbox is how a program is kept from the tracing files, from labctl's own
// programs, from the link and from PID 1: it is an ordinary user without
// capabilities, in a mount namespace with a /proc and a /sys of its own and little
// else, in a session and a cgroup of its own. What it leaves running is killed.
type Sandbox struct {
	// Privileges are what it may do beyond that, of Privileges.
	Privileges []string `json:"privileges,omitempty"`
}

// Privilege is one thing that a sandboxed program may be allowed to do.
type Privilege struct {
	Name string
	// Files may be written, by their paths or globs. Whoever writes such files is
	// the guest's root, without capabilities.
	Files []string
	// Capability is of capabilities(7), by its number; 0 for none, which is
	// CAP_CHOWN and never given.
	Capability int
	// Namespace is a user namespace of its own, in which it is root.
	Namespace bool
	// Config are the kernel options, without CONFIG_, that it takes.
	Config []string
}

// RootPrivilege is the privilege of a program that runs as the guest's root, outside
// of any sandbox.
const RootPrivilege = "root"

// Numbers of include/uapi/linux/capability.h.
const (
	capSysAdmin = 21
	capSysNice  = 23
)

// Privileges are all that there are but RootPrivilege.
var Privileges = []Privilege{
	// It can make namespaces, mount file systems and take user IDs of its own.
	{Name: "namespaces", Namespace: true, Config: []string{"USER_NS"}},
	// /proc/PID/stack of its own tasks wants CAP_SYS_ADMIN (proc_pid_stack in
	// fs/proc/base.c). What else that allows is taken away by a filter.
	{Name: "kernel_stacks", Capability: capSysAdmin, Config: []string{"SECCOMP_FILTER"}},
	{Name: "realtime", Capability: capSysNice},
	{Name: "pid_max", Files: []string{"/proc/sys/kernel/pid_max"}, Config: []string{"SECCOMP_FILTER"}},
	{Name: "workqueues", Files: []string{"/sys/devices/virtual/workqueue/cpumask"}, Config: []string{"SECCOMP_FILTER"}},
	{Name: "cpu_hotplug", Files: []string{"/sys/devices/system/cpu/cpu[0-9]*/online"}, Config: []string{"SECCOMP_FILTER"}},
}

// FindPrivilege finds one of Privileges by its name.
func FindPrivilege(name string) (Privilege, bool) {
	i := slices.IndexFunc(Privileges, func(p Privilege) bool { return p.Name == name })
	if i < 0 {
		return Privilege{}, false
	}
	return Privileges[i], true
}

// Watched is what the agent has seen of a program and the capture around it.
type Watched struct {
	// Changed are the settings of the capture that are not what they were, "tracing_on:
	// 1 before, 0 now"; at most MaxChanged.
	Changed []string `json:"changed,omitempty"`
	// Forks is how many tasks the kernel says it has made (processes of /proc/stat)
	// at some time between the mark and the end mark.
	Forks int64 `json:"forks"`
}

// MaxChanged bounds Watched.Changed.
const MaxChanged = 16

// Zones is where time zones are in the guest: the archive of a Go toolchain, which
// programs built by Go read where the environment's ZONEINFO names it.
const Zones = "/usr/lib/go/lib/time/zoneinfo.zip"
