package registry

import (
	"time"

	"labctl/host/text"
)

// Info describes a running machine.
type Info struct {
	Name string `json:"name"`
	ID   string `json:"id"` // differs from that of every other machine
	// Named means that the user has named it, to be used by other commands: by labctl up.
	Named   bool      `json:"named"`
	Run     string    `json:"run"`     // what it was started for: "up", "exec-prog", "lab-P1"
	Labctl  string    `json:"labctl"`  // version of the owner
	Command []string  `json:"command"` // of the owner
	Started time.Time `json:"started"`
	PID     int       `json:"pid"`  // of the owner
	QEMU    int       `json:"qemu"` // process ID

	Target   string `json:"target"`  // row of host/targets: "arm64", "raspi3b"
	Arch     string `json:"arch"`    // GOARCH
	Version  string `json:"version"` // of QEMU
	Accel    string `json:"accel"`   // "tcg", "kvm"
	Link     string `json:"link"`    // the agent's: "virtio", "uart"
	CPUs     int    `json:"cpus"`
	MemoryMB int    `json:"memory_mb"`
	Commands bool   `json:"commands"` // has u-root's commands
	Kernel   Kernel `json:"kernel"`
	// Template is the key of the template that it was started from, empty for a boot
	// from the kernel on. Clones of one template have the same KASLR offset.
	Template string `json:"template,omitempty"`

	// IdleLimit is how long the machine is kept without use, 0 for ever.
	IdleLimit Seconds `json:"idle_limit_seconds,omitempty"`
	Idle      Seconds `json:"idle_seconds"` // how long it has not been used
	Programs  int     `json:"programs"`     // that other commands run in it
	Debugger  bool    `json:"debugger"`     // the gdbstub is in use

	// Trouble says why nothing else is known of the machine.
	Trouble string `json:"trouble,omitempty"`
}

// Seconds is a time in seconds.
type Seconds float64

// Duration returns the time.
func (s Seconds) Duration() time.Duration { return time.Duration(float64(s) * float64(time.Second)) }

// Kernel is a guest's kernel.
type Kernel struct {
	Ref     string `json:"ref"`     // for kernel.ParseRef: finds exactly this kernel
	Source  string `json:"source"`  // kernel.KindDebian and so on
	Release string `json:"release"` // uname -r
	Image   string `json:"image"`   // path of the image as it was packaged
	SHA256  string `json:"sha256"`  // of the image
}

// clean makes all texts fit to be printed: they are another process's.
func (i *Info) clean() {
	for _, s := range []*string{&i.Run, &i.Labctl, &i.Target, &i.Arch, &i.Version, &i.Accel, &i.Link, &i.Kernel.Ref, &i.Kernel.Source, &i.Kernel.Release, &i.Kernel.Image, &i.Kernel.SHA256, &i.Template, &i.Trouble} {
		*s = text.Line(*s, 4096)
	}
	for k := range i.Command {
		i.Command[k] = text.Line(i.Command[k], 4096)
	}
}
