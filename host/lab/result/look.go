package result

import (
	"fmt"
	"strings"

	"labctl/host/text"
)

// Look is what was read from outside the guest at one point of a step, while the guest
// stood still. Addresses of the kernel are two's complement: they are below 0, and compare
// and subtract as they should.
type Look struct {
	At string `json:"at"`
	// Reached is the function that a task of the program has come to, "" at other points.
	Reached string `json:"reached,omitempty"`
	// Said are the numbers that the program named, and those of tasks at a point that it
	// has not marked. At one that it has marked nothing else is the program's word.
	Said map[string][]int64 `json:"said,omitempty"`
	// Error says why nothing was read.
	Error   string          `json:"error,omitempty"`
	Tasks   []OutsideTask   `json:"tasks,omitempty"`
	Stacks  []OutsideStack  `json:"stacks,omitempty"`
	Maps    []OutsideMaps   `json:"maps,omitempty"`
	Pages   []OutsidePage   `json:"pages,omitempty"`
	Structs []OutsideStruct `json:"structs,omitempty"`
}

// OutsideTask is a task in the kernel's memory.
type OutsideTask struct {
	TID  int64 `json:"tid"`
	PID  int64 `json:"pid"` // of its process
	PPID int64 `json:"ppid"`
	// Own says that the task came to be in the step and is no kernel thread.
	Own     bool   `json:"own"`
	Comm    string `json:"comm"`
	Kernel  bool   `json:"kernel"`
	State   string `json:"state"`
	CPU     int64  `json:"cpu"`
	Policy  string `json:"policy"`
	Nice    int64  `json:"nice"`
	Address int64  `json:"address"` // of its task_struct
	// Stack is the lowest address of its kernel stack, StackSize its size, StackUsed how
	// much of it a task that does not run uses, StackEnd the word at the lowest address.
	Stack     int64 `json:"stack"`
	StackSize int64 `json:"stack_size"`
	StackUsed int64 `json:"stack_used"`
	StackEnd  int64 `json:"stack_end"`
}

// OutsideStack is the kernel stack of a task.
type OutsideStack struct {
	Of    string `json:"of"` // how the lab calls the task
	TID   int64  `json:"tid"`
	Comm  string `json:"comm"`
	State string `json:"state"`
	Stack Stack  `json:"stack"`
	// Proc is the stack without the frames of the scheduler, which /proc/PID/stack leaves
	// out.
	Proc  Stack  `json:"proc"`
	Note  string `json:"note,omitempty"` // why there is none
	Error string `json:"error,omitempty"`
}

// OutsideMaps is the memory areas of a process.
type OutsideMaps struct {
	Of    string        `json:"of"`
	TID   int64         `json:"tid"`
	Areas []OutsideArea `json:"areas,omitempty"`
	Error string        `json:"error,omitempty"`
}

// OutsideArea is a line of /proc/PID/maps.
type OutsideArea struct {
	Start  int64  `json:"start"`
	End    int64  `json:"end"`
	Perms  string `json:"perms"` // "rw-p"
	Offset int64  `json:"offset"`
	Inode  int64  `json:"inode"`
	Name   string `json:"name,omitempty"`
	Line   string `json:"line"` // as /proc/PID/maps has it
}

// OutsidePage is an address of a process on its way through the page tables.
type OutsidePage struct {
	Of      string         `json:"of"` // how the lab calls the task
	TID     int64          `json:"tid"`
	Name    string         `json:"name"` // how the lab calls the address
	Address int64          `json:"address"`
	Format  string         `json:"format"` // "x86-64, 4 levels"
	Entries []OutsideEntry `json:"entries,omitempty"`
	Mapped  bool           `json:"mapped"`
	Why     string         `json:"why,omitempty"` // it is not mapped
	// Bits are the names of those that are set in the entry that maps the page; Writable,
	// User and Accessed are what they say, on any architecture.
	Bits     []string `json:"bits,omitempty"`
	Writable bool     `json:"writable"`
	User     bool     `json:"user"`
	Accessed bool     `json:"accessed"`
	Phys     int64    `json:"phys"` // guest-physical address
	Size     int64    `json:"size"` // of the page
	PFN      int64    `json:"pfn"`
	Node     int64    `json:"node"` // of NUMA, by where QEMU has that memory
	// Refs, Mapped and Flags are what the kernel keeps of the page frame; NoFrame says
	// why that is not known.
	Refs    int64    `json:"refs"`
	Maps    int64    `json:"maps"`
	Flags   []string `json:"flags,omitempty"`
	NoFrame string   `json:"no_frame,omitempty"`
	Error   string   `json:"error,omitempty"`
}

// OutsideEntry is one level of the walk.
type OutsideEntry struct {
	Level string   `json:"level"` // "PGD"
	Index int64    `json:"index"`
	At    int64    `json:"at"`    // guest-physical address of the entry
	Entry string   `json:"entry"` // in hexadecimal
	Bits  []string `json:"bits,omitempty"`
	Leaf  bool     `json:"leaf,omitempty"`
}

// OutsideStruct is members of a structure.
type OutsideStruct struct {
	Of      string          `json:"of"` // how the lab calls the task, or the variable
	TID     int64           `json:"tid,omitempty"`
	Type    string          `json:"type"`
	Address int64           `json:"address"`
	Size    int64           `json:"size"`
	Members []OutsideMember `json:"members,omitempty"`
	Error   string          `json:"error,omitempty"`
}

// OutsideMember is one member as it was asked for.
type OutsideMember struct {
	Name string `json:"name"`
	// There says that the kernel's structure has the member.
	There   bool   `json:"there"`
	Type    string `json:"type,omitempty"` // in C
	Address int64  `json:"address"`
	// Offset is where it is in the structure; -1 for what a pointer leads to.
	Offset int64  `json:"offset"`
	Number int64  `json:"number"`
	Text   string `json:"text,omitempty"` // as it is printed
	Error  string `json:"error,omitempty"`
}

// Outside prints what was read from outside for people.
func (r *Result) Outside() string {
	var b strings.Builder
	for _, s := range r.Steps {
		for i := range s.Looks {
			s.Looks[i].print(&b, s.ID)
		}
	}
	return b.String()
}

func (l *Look) print(b *strings.Builder, step string) {
	clean := func(s string) string { return text.Line(s, 500) }
	fmt.Fprintf(b, "== step %s at %s\n", step, clean(l.At))
	if l.Reached != "" {
		fmt.Fprintf(b, "task %d comes to %s\n", l.Said["task"], clean(l.Reached))
	}
	if l.Error != "" {
		fmt.Fprintf(b, "%s\n", clean(l.Error))
	}
	for _, t := range l.Tasks {
		fmt.Fprintf(b, "task %d, %s: %s, parent %d, task_struct at 0x%x, stack at 0x%x\n", t.TID, clean(t.Comm), clean(t.State), t.PPID, uint64(t.Address), uint64(t.Stack))
	}
	for _, s := range l.Stacks {
		fmt.Fprintf(b, "\nstack of %s: %s-%d, %s %s\n", clean(s.Of), clean(s.Comm), s.TID, clean(s.State), clean(s.Note+s.Error))
		printed := s.Stack.Print()
		b.WriteString(printed.TRACE32())
	}
	for _, m := range l.Maps {
		fmt.Fprintf(b, "\nmaps of %s, %d %s\n", clean(m.Of), m.TID, clean(m.Error))
		for _, a := range m.Areas {
			fmt.Fprintln(b, clean(a.Line))
		}
	}
	for _, p := range l.Pages {
		fmt.Fprintf(b, "\n%s 0x%x of %s, %d; %s %s\n", clean(p.Name), uint64(p.Address), clean(p.Of), p.TID, clean(p.Format), clean(p.Error))
		for _, e := range p.Entries {
			fmt.Fprintf(b, "  %-4s [%d] at 0x%x: %s %s\n", clean(e.Level), e.Index, uint64(e.At), clean(e.Entry), clean(strings.Join(e.Bits, " ")))
		}
		if !p.Mapped {
			fmt.Fprintf(b, "  %s\n", clean(p.Why))
			continue
		}
		fmt.Fprintf(b, "  physical 0x%x, frame 0x%x: %d references, mapped %d times; %s\n", uint64(p.Phys), uint64(p.PFN), p.Refs, p.Maps, clean(strings.Join(p.Flags, " ")+p.NoFrame))
	}
	for _, s := range l.Structs {
		fmt.Fprintf(b, "\n%s of %s at 0x%x %s\n", clean(s.Type), clean(s.Of), uint64(s.Address), clean(s.Error))
		for _, m := range s.Members {
			if !m.There {
				fmt.Fprintf(b, "  %s: there is no such member\n", clean(m.Name))
				continue
			}
			fmt.Fprintf(b, "  %s = %s%s\n", clean(m.Name), clean(m.Text), clean(m.Error))
		}
	}
	b.WriteString("\n")
}
