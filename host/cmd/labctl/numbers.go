package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"labctl/host/targets"
)

// intFlag is a flag for a number from min to max. Left out it is 0.
func intFlag(f *pflag.FlagSet, p *int, name string, min, max int, usage string) {
	f.Var(&number[int]{p, min, max, "int", strconv.Itoa, strconv.Atoi}, name, usage)
}

// sizeFlags are those of a machine's CPUs and memory.
func sizeFlags(f *pflag.FlagSet, cpus, memoryMB *int) {
	intFlag(f, cpus, "smp", 1, targets.MaxCPUs, "number of CPUs (default: the machine's)")
	intFlag(f, memoryMB, "mem", targets.MinMemoryMB, targets.MaxMemoryMB, "memory in MB (default: the machine's)")
}

// timeFlag is a flag for a time of at least a millisecond. Left out it is 0.
func timeFlag(f *pflag.FlagSet, p *time.Duration, name, usage string) {
	f.Var(&number[time.Duration]{p, time.Millisecond, 1000 * time.Hour, "duration", time.Duration.String, time.ParseDuration}, name, usage)
}

// patienceFlag is the flag --patience.
func patienceFlag(f *pflag.FlagSet, p *float64) {
	*p = 1
	show := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
	parse := func(s string) (float64, error) { return strconv.ParseFloat(s, 64) }
	f.Var(&number[float64]{p, 0.0001, 1000, "factor", show, parse}, "patience", "multiply every boot deadline, for a slow or busy host")
}

// number is the value of a flag within bounds.
type number[T int | float64 | time.Duration] struct {
	p        *T
	min, max T
	kind     string
	show     func(T) string
	parse    func(string) (T, error)
}

func (n *number[T]) String() string {
	if n.p == nil || *n.p == 0 { // the zero value is asked, too
		return ""
	}
	return n.show(*n.p)
}

func (n *number[T]) Type() string { return n.kind }

func (n *number[T]) Set(s string) error {
	v, err := n.parse(s)
	if err != nil || !(n.min <= v && v <= n.max) { // NaN is neither
		return fmt.Errorf("want %s to %s", n.show(n.min), n.show(n.max))
	}
	*n.p = v
	return nil
}
