package command

// Word is a command.
type Word struct {
	Name       string   // labctl's
	Short      []string // other names, as gdb's users know them
	Lauterbach []string // TRACE32's; capitals are what an abbreviation must have
	Usage      string   // what follows the name
	Help       string   // one line
	Options    []Option
	// Before is how many arguments come before options may.
	Before int
	// Raw says that there are no options: everything is arguments.
	Raw bool
}

// Option is an option of a Word.
type Option struct {
	Name       string // labctl's
	Lauterbach string // TRACE32's, behind a slash
	Value      string // what it wants, "" for none
	Rest       bool   // its value is the rest of the line
}

var (
	optTask  = Option{Name: "task", Lauterbach: "TASK", Value: "the name of a task"}
	optPID   = Option{Name: "pid", Value: "the number of a task"}
	optCount = Option{Name: "count", Lauterbach: "COUNT", Value: "a number"}
	optIf    = Option{Name: "if", Lauterbach: "CONDition", Value: "a condition", Rest: true}
	optOf    = Option{Name: "of", Value: "the number of a task"}
	optAt    = Option{Name: "at", Value: "an address or a symbol"}
)

// Words are all commands, in the order of help.
var Words = []Word{
	{
		Name: "break", Short: []string{"b", "br"}, Lauterbach: []string{"Break.Set"}, Before: 1,
		Usage:   "WHERE [task NAME] [pid N] [count N] [if CONDITION]",
		Help:    "stop at a function, a symbol+offset or an address; with count, the N-th time",
		Options: []Option{optTask, optPID, optCount, {Name: "write", Lauterbach: "Write"}, {Name: "read", Lauterbach: "Read"}, {Name: "access", Lauterbach: "ReadWrite"}, optIf},
	},
	{
		Name: "tbreak", Short: []string{"tb"}, Before: 1,
		Usage: "WHERE [task NAME] [pid N] [count N] [if CONDITION]", Help: "the same, once",
		Options: []Option{optTask, optPID, optCount, optIf},
	},
	{
		Name: "watch", Lauterbach: []string{"Var.Break.Set"}, Before: 1,
		Usage: "TYPE.MEMBER of TID | TYPE.MEMBER at ADDRESS | ADDRESS [SIZE] [read|access] [task NAME] [pid N] [count N] [if CONDITION]",
		Help:  "stop when memory is written and has changed; or is read, or either",
		Options: []Option{optOf, optAt, {Name: "write", Lauterbach: "Write"}, {Name: "read", Lauterbach: "Read"}, {Name: "access", Lauterbach: "ReadWrite"},
			optTask, optPID, optCount, optIf},
	},
	{Name: "breaks", Short: []string{"info"}, Lauterbach: []string{"Break.List"}, Usage: "", Help: "list breakpoints and watchpoints with how often they were met"},
	{Name: "delete", Short: []string{"d", "clear"}, Lauterbach: []string{"Break.Delete", "Break.RESet"}, Usage: "[N…]", Help: "delete some, or all"},
	{Name: "disable", Lauterbach: []string{"Break.DISable"}, Usage: "N…", Help: "keep them without stopping there"},
	{Name: "enable", Lauterbach: []string{"Break.ENable"}, Usage: "N…", Help: "stop there again"},

	{Name: "go", Short: []string{"c", "continue", "g"}, Lauterbach: []string{"Go.direct"}, Usage: "[WHERE]", Help: "let the guest run, up to the next stop; Ctrl-C stops it"},
	{Name: "step", Short: []string{"s", "si", "stepi"}, Lauterbach: []string{"Step.single", "Step.Asm"}, Usage: "[N]", Help: "run one instruction of this CPU, or N"},
	{Name: "next", Short: []string{"n", "ni", "nexti"}, Lauterbach: []string{"Step.Over"}, Usage: "[N]", Help: "the same, calls as one"},
	{Name: "finish", Short: []string{"fin", "up"}, Lauterbach: []string{"Go.Up", "Go.Return"}, Usage: "", Help: "run until this function has returned, and show what it returns"},
	{Name: "until", Short: []string{"u", "advance"}, Lauterbach: []string{"Go.Till"}, Usage: "WHERE", Help: "run until this task comes there"},
	{Name: "stop", Short: []string{"interrupt"}, Lauterbach: []string{"Break.direct"}, Usage: "", Help: "stop the guest"},

	{
		Name: "stack", Short: []string{"bt", "where", "frame"}, Lauterbach: []string{"Frame.view", "Var.Frame"},
		Usage: "[TID|NAME|all] [style STYLE]", Help: "the call stack of this CPU, or of a task",
		Options: []Option{optTask, {Name: "style", Value: "the name of a style"}, {Name: "locals", Lauterbach: "Locals"}, {Name: "caller", Lauterbach: "Caller"}},
	},
	{Name: "registers", Short: []string{"r", "regs"}, Lauterbach: []string{"Register.view"}, Usage: "[NAME…]", Help: "the registers of this CPU, or of a name"},
	{Name: "cpu", Short: []string{"thread"}, Lauterbach: []string{"CORE.select"}, Usage: "[N]", Help: "list the CPUs, or choose the one that is shown and stepped"},
	{Name: "print", Short: []string{"p"}, Lauterbach: []string{"Var.View", "Var.Watch"}, Usage: "EXPRESSION", Help: "a value: current->comm, args->flags, init_task.pid, $rdi", Raw: true},
	{
		Name: "struct", Usage: "TYPE [MEMBER…] of TID | at ADDRESS", Help: "a structure, or some of its members", Before: 1,
		Options: []Option{optOf, optAt},
	},
	{Name: "dump", Short: []string{"x", "memory"}, Lauterbach: []string{"Data.dump"}, Usage: "ADDRESS [BYTES]", Help: "memory, by words"},
	{Name: "list", Short: []string{"l", "disassemble", "disas"}, Lauterbach: []string{"Data.List", "List.Asm"}, Usage: "[WHERE] [N]", Help: "instructions"},
	{Name: "set", Lauterbach: []string{"Register.Set", "Data.Set", "Var.Set"}, Usage: "PLACE = VALUE", Help: "write a register or memory: $rdi, args->flags", Raw: true},

	{Name: "ps", Short: []string{"tasks"}, Lauterbach: []string{"TASK.DTask", "TASK.PS", "TASK.Process"}, Usage: "[NAME]", Help: "list the tasks"},
	{Name: "modules", Lauterbach: []string{"TASK.MODule"}, Usage: "", Help: "list the loaded modules"},
	{Name: "dmesg", Usage: "[LINES]", Help: "the end of the kernel's log"},
	{Name: "symbol", Short: []string{"sym"}, Lauterbach: []string{"sYmbol.INFO"}, Usage: "NAME|ADDRESS", Help: "where a symbol is, and what is at an address"},
	{Name: "symbols", Lauterbach: []string{"sYmbol.Browse", "sYmbol.List"}, Usage: "PATTERN", Help: "find symbols by name"},

	{Name: "checkpoint", Usage: "NAME", Help: "keep the machine as it stands here"},
	{Name: "back", Usage: "[NAME]", Help: "go on from a checkpoint: this session's last one, or another"},
	{Name: "help", Short: []string{"h", "?"}, Lauterbach: []string{"HELP"}, Usage: "[COMMAND]", Help: "this list, or one command"},
	{Name: "quit", Short: []string{"q", "exit"}, Lauterbach: []string{"QUIT"}, Usage: "", Help: "remove the breakpoints, let the guest run, and leave"},
}
