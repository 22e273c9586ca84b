package debug

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"

	"labctl/guest/ksym"
	"labctl/host/arch"
	"labctl/host/clone"
	"labctl/host/kernel/ctype"
	"labctl/host/stack"
	"labctl/host/text"
)

// rows are the architectures that can be debugged, by GOARCH.
var rows = func() map[string]archRow {
	all := map[string]archRow{
		"amd64": {pc: "rip", sp: "rsp", result: "rax"},
		"arm64": {pc: "pc", sp: "sp", result: "x0"},
		"arm":   {pc: "pc", sp: "sp", result: "r0"},
	}
	for name, row := range all {
		a, _ := arch.Find(name)
		for _, reg := range a.Entry.Args {
			reg = strings.TrimPrefix(reg, "%")
			if name == "amd64" && len(reg) == 2 && reg[0] >= 'a' { // kprobe events leave the r out
				if reg != "r8" && reg != "r9" {
					reg = "r" + reg
				}
			}
			row.args = append(row.args, reg)
		}
		all[name] = row
	}
	return all
}()

// operand is a value: a number with its C type, or a text.
type operand struct {
	name string
	typ  btf.Type // nil: an unsigned number without a type
	num  uint64

	isText bool
	text   string

	addr  uint64 // where it is in memory, if inMem
	inMem bool
	reg   string // the register that it is in, if it is in one
}

// params are the arguments of a function at its first instruction, nil if its prototype is
// not known. all says that these are all of its arguments.
func (p *place) params(function string) (args []operand, all bool) {
	if ksym.Strip(function) != function { // the compiler may have left arguments out
		return nil, false
	}
	spec, err := p.l.K.Types()
	if err != nil {
		return nil, false
	}
	var fn *btf.Func
	if spec.TypeByName(function, &fn) != nil {
		return nil, false
	}
	proto, ok := fn.Type.(*btf.FuncProto)
	if !ok {
		return nil, false
	}
	args, all = []operand{}, true
	word := p.l.K.Word()
	for i, n := 0, 0; i < len(proto.Params); i++ {
		param := proto.Params[i]
		size := ctype.Size(param.Type, 8*word)
		_, compound := btf.UnderlyingType(param.Type).(*btf.Struct)
		if n >= len(p.s.row.args) || size < 1 || size > word || compound {
			all = false // on the stack, or in several registers
			break
		}
		v := p.regs[p.s.row.args[n]]
		if size < 8 {
			v &= 1<<(8*size) - 1
		}
		args = append(args, operand{name: param.Name, typ: param.Type, num: v, reg: p.s.row.args[n]})
		n++
	}
	return args, all
}

// arguments formats params for a frame.
func (p *place) arguments(function string) (args []stack.Arg, all bool) {
	params, all := p.params(function)
	for _, a := range params {
		args = append(args, stack.Arg{Name: text.Line(a.name, 80), Value: p.format(a)})
	}
	return args, all
}

// shown are the members of a structure that are shown where a pointer to it is an
// argument. Those in others are shown when they are not 0.
var shown = map[string]struct{ always, others []string }{
	"kernel_clone_args": {[]string{"flags", "exit_signal"}, []string{"stack", "stack_size", "tls", "parent_tid", "child_tid", "pidfd", "fn", "fn_arg", "kthread", "io_thread", "user_worker", "idle", "name", "set_tid_size", "cgroup"}},
	"task_struct":       {[]string{"comm", "pid"}, nil},
	"filename":          {[]string{"name"}, nil},
	"linux_binprm":      {[]string{"filename"}, nil},
	"kernel_siginfo":    {[]string{"si_signo"}, nil},
	"dentry":            {[]string{"d_name.name"}, nil},
	"file":              {[]string{"f_path.dentry"}, nil},
	"work_struct":       {[]string{"func"}, nil},
	"module":            {[]string{"name"}, nil},
}

// format formats a value in the form of an argument: "0xffffc900001f3e80 (flags = …)".
func (p *place) format(v operand) string {
	switch {
	case v.isText:
		return fmt.Sprintf("%q", v.text)
	case v.typ == nil:
		return number(v.num)
	}
	if f, ok := p.special(v); ok {
		return f
	}
	r, err := p.reader()
	if err != nil {
		return number(v.num)
	}
	out := text.Line(r.Scalar(v.typ, v.num), 200)
	ptr, ok := btf.UnderlyingType(v.typ).(*btf.Pointer)
	if !ok || v.num == 0 {
		return out
	}
	target, ok := btf.UnderlyingType(ptr.Target).(*btf.Struct)
	if !ok {
		return out
	}
	row, ok := shown[target.Name]
	if !ok {
		return out
	}
	var parts []string
	for i, m := range append(append([]string{}, row.always...), row.others...) {
		one, err := r.Path(target, v.num, m)
		if err != nil || one.Error != "" || i >= len(row.always) && one.Number == 0 {
			continue
		}
		val := one.Line()
		if f, ok := p.special(operand{name: m, num: one.Number, typ: &btf.Int{Size: 8}}); ok {
			val = m + " = " + f
		}
		parts = append(parts, text.Line(val, 200))
	}
	if len(parts) == 0 {
		return out
	}
	return out + " (" + strings.Join(parts, ", ") + ")"
}

// special formats what has a form of its own: the flags of clone.
func (p *place) special(v operand) (string, bool) {
	switch v.name {
	case "clone_flags", "flags":
		// "flags" is a name that many have: that of kernel_clone_args, and of calls
		// that take CLONE_ flags, are meant.
		if v.name == "flags" && !p.cloning() {
			return "", false
		}
		return clone.Flags(v.num).String(), true
	}
	return "", false
}

// cloning reports whether the CPU stands in a function that makes tasks.
func (p *place) cloning() bool {
	s, ok := p.lookup()(p.pc)
	if !ok {
		return false
	}
	sym, ok := ksym.Family(s.Name)
	for _, f := range ksym.CreationFamilies {
		if ok && sym.Family == f {
			return true
		}
	}
	return false
}

// number is an untyped number: small ones in decimal.
func number(n uint64) string {
	if n < 4096 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("0x%x", n)
}
