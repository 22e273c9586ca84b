package crash

import "slices"

// Taint is a flag of a kernel that only reports set
// (Documentation/admin-guide/tainted-kernels.rst).
type Taint struct {
	Bit   uint
	Kind  Kind // of the least report that explains it
	Title string
}

// The console can be made silent (dmesg -n 1, quiet), and since 6.13 a thread may print
// it after the fact. What taints a kernel it does not forget.
var taints = []Taint{
	{7, Oops, "the kernel is tainted by an oops (D), which its console does not show"},
	{9, Warning, "the kernel is tainted by a warning (W), which its console does not show"},
}

// explains reports whether one of reports is what has set the flag.
func (t Taint) explains(reports []*Report) bool {
	return slices.ContainsFunc(reports, func(r *Report) bool { return r.Kind.Severity() >= t.Kind.Severity() })
}

// Unexplained returns the flags of tainted, /proc/sys/kernel/tainted, that are not set by
// reports.
func Unexplained(tainted uint64, reports []*Report) (flags []Taint) {
	for _, t := range taints {
		if tainted&(1<<t.Bit) != 0 && !t.explains(reports) {
			flags = append(flags, t)
		}
	}
	return flags
}

// TaintedBy returns the flags that reports set.
func TaintedBy(reports []*Report) (tainted uint64) {
	for _, t := range taints {
		if t.explains(reports) {
			tainted |= 1 << t.Bit
		}
	}
	return tainted
}
