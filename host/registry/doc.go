// Package registry knows the machines that run: their names, and who has them. Every
// labctl that runs a machine owns a socket, NAME.sock, in a private directory of the
// user's, and answers there for as long as the machine runs. Other commands reach the
// machine by that.
//
//	m, err := registry.Find(ctx, "lab")      // or "", for the only one
//	m.Info                                   // kernel, machine, who runs it
//	mem, err := m.Memory(ctx)                // the guest's memory: mem.ReadAt(p, physical)
//	regs, err := m.Registers(ctx)            // as QEMU prints them
//	cont, err := m.Stop(ctx); defer cont()   // the guest stands still meanwhile
//	gdb, err := m.GDB(ctx)                   // QEMU's gdbstub
//
// *Machine is a vm.Inspector, as is *vm.VM in the process that runs the machine: code
// that takes a vm.Inspector works on both. A guest's kernel, with its symbols and
// types, is found by Info.Kernel.Ref and Info.Arch in kernel.Cache.Get; Info.Kernel has
// its checksum, too.
//
// # The directory
//
// It is labctl in $XDG_RUNTIME_DIR if that is the user's own, else run in the cache. It
// is the user's with mode 0700, or it is not used. The kernel tells both ends of a
// connection who the other is (unix(7), SO_PEERCRED), and each accepts its own user
// only.
//
// A socket to which nobody listens is that of an owner that was killed. Whoever meets
// one removes it, under a lock that is also held while one is made.
//
// # The protocol
//
// A client sends a request in one line of JSON and gets a reply in one line, any number
// of times. Unknown fields are errors, lines are bounded. Files travel beside a reply
// (unix(7), SCM_RIGHTS): with opMemory that of QEMU's memory or, where the host lets nobody
// open it, a socket on which vm.Memory.Serve answers. What a client has stopped goes on when its connection ends.
package registry
