package crash

// Severity orders kinds of reports by what they leave of the kernel.
type Severity int

const (
	SeverityWarn  Severity = 1 + iota // something is wrong, or a process was killed on purpose
	SeverityBug                       // a fault of the kernel that no task died of
	SeverityOops                      // a task died in the kernel
	SeverityPanic                     // the kernel stopped
)

// Severity returns the severity of a kind of report.
func (k Kind) Severity() Severity {
	switch k {
	case Warning, OOM:
		return SeverityWarn
	case Oops:
		return SeverityOops
	case Panic, Halt:
		return SeverityPanic
	}
	return SeverityBug
}
