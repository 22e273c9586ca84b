// Package catalogue lists the probes of labprobe. The guest's registry and the
// host's plans and help are held against the same list.
package catalogue

// BadUsage is labprobe's exit status for a probe, or parameters of one, that it
// does not have.
const BadUsage = 2

// Probe describes one probe to both sides: the guest refuses to register a probe
// that is not listed, and the host lists probes and checks plans without a guest.
type Probe struct {
	Name    string `json:"name"`
	Summary string `json:"summary"`
	Makes   string `json:"makes"`           // the role of the tasks it makes, "" for none
	Params  string `json:"params"`          // a JSON object: every parameter with its default; null means that the probe chooses
	Needs   string `json:"needs,omitempty"` // a system call that it makes and older kernels lack
}

// Probes lists every probe, in the order of a lesson.
func Probes() []Probe {
	return []Probe{
		{"ids", "report the probe's own ids and make nothing", "", `{}`, ""},
		{"spawn", "start itself again by Go's os.StartProcess", "child", `{}`, ""},
		{"fork", "fork a child by clone(SIGCHLD), or by the fork call where there is one", "child", `{"syscall":"clone","flags":0}`, ""},
		{"vfork", "suspend itself until a vfork child has ended", "child", `{"syscall":"vfork"}`, ""},
		{"thread", "make a thread with the flags of pthread_create, and join it", "thread", `{}`, ""},
		{"clone3", "make a child by clone3 with a struct clone_args", "child", `{"flags":0,"exit_signal":17,"size":64}`, "clone3"},
		{"visible", "make a thread and look for it in /proc: listed, opened, in task/, and after its end", "thread", `{}`, ""},
		{"cputime", "have one thread of two burn CPU time, and read whom /proc charges it to", "thread", `{"ticks":30}`, ""},
		{"variables", "have a child add one to two variables, and read them in both tasks", "child", `{"flags":0,"exit_signal":17}`, ""},
		{"exec", "replace a program by execve: in a child, or by a thread that is not the leader", "child", `{"by":"child","file":"/proc/self/exe","before":null}`, ""},
		{"suspend", "make a child and see how long its maker stands still: by vfork, fork, or either flag of it", "child", `{"flags":16640,"sleep_ms":20,"end":"exit"}`, ""},
		{"pids", "make one child after another and read their numbers, on request until they begin anew", "child", `{"forks":8,"wrap":false}`, ""},
		{"tasklist", "list every process that /proc shows, kernel threads among them", "child", `{}`, ""},
		{"poller", "have io_uring make a task that polls for it, and see whose it is", "", `{}`, ""},
		{"states", "put a child into every state of a task, and look at it from outside", "child", `{}`, ""},
		{"share", "have a child change a variable, open a file and change directory, and look what of it the maker has", "child", `{"flags":0}`, ""},
		{"combinations", "ask for children by combinations of flags, legal and illegal, and say what the kernel answers", "child", `{"by":"clone"}`, ""},
		{"endsignal", "make a child with an exit signal, or none, and try which waits find it when it has ended", "child", `{"exit_signal":0,"exec":false}`, ""},
		{"arguments", "find out which argument of clone, or member of clone_args, the kernel takes for what", "child", `{"by":"clone"}`, ""},
		{"namespaces", "make a child in each kind of new namespace, one by one, and compare inside and outside", "child", `{}`, ""},
		{"ending", "let a child end, by its own exit or by SIGKILL, and look at it before it is reaped", "child", `{"by":"exit","status":0,"signal":9}`, ""},
		{"pingpong", "have two tasks hand one CPU to each other, with one address space or two", "child", `{"flags":0,"rounds":30}`, ""},
		{"cow", "fork a child that writes to one of its parent's pages, and look at the page frames of both", "child", `{"pages":34,"index":2}`, ""},
		{"rss", "have a child read and write zeroes and its parent's pages, and look at Rss and Pss of both", "child", `{"pages":64}`, ""},
		{"demand", "have a child read, then write memory that nobody has touched, and count faults and page frames", "child", `{"pages":512}`, ""},
		{"shm", "have a child attach a System V segment at a second address, and look at the page frames", "child", `{}`, ""},
		{"filemap", "map a file three times, shared and private, and look at the page frames", "child", `{}`, ""},
		{"entries", "look at a shared page in the page tables of a parent, a child and a thread", "child", `{}`, ""},
		{"faults", "have a child touch memory in nine ways, and look at the page faults of each", "child", `{}`, ""},
		{"segv", "have a child do three accesses that are not allowed, and mend each", "child", `{}`, ""},
		{"tls", "give two threads a thread pointer each, and read it by its register, by a call and as they sleep", "child", `{}`, ""},
		{"futex", "have children and a thread wait on words of shared and private memory, and wake them", "child", `{}`, ""},
		{"areas", "have a child split, merge and grow its memory areas, read its maps, and find a thread's stack there", "thread", `{}`, ""},
		{"levels", "have a child touch pages near and far, and count page tables", "child", `{}`, ""},
		{"huge", "map huge pages without a pool and with one, and have the kernel make one, split it and make it again", "", `{}`, ""},
		{"numa", "have memory placed on nodes of NUMA, and move it", "", `{}`, ""},
		{"pss", "have a child share a segment and pages of its parent's, and look at Rss and Pss of both", "child", `{}`, ""},
		{"schedfiles", "have a child and a thread sleep and wake, and read what the scheduler's files say of them", "child", `{}`, ""},
		{"creation", "fork, vfork and make threads with more and more memory in use, and look at what the new task has of it", "thread", `{}`, ""},
		{"kthread", "have kthreadd make a kernel thread: by huge pages, a PSI trigger, a second CPU or new pools of workers", "kthread", `{"trigger":null,"timeout_ms":10000}`, ""},
	}
}

// Names lists the probes' names in that order.
func Names() []string {
	var names []string
	for _, p := range Probes() {
		names = append(names, p.Name)
	}
	return names
}

// Find returns the entry of a probe.
func Find(name string) (Probe, bool) {
	for _, p := range Probes() {
		if p.Name == name {
			return p, true
		}
	}
	return Probe{}, false
}
