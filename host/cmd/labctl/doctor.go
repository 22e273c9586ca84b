package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"labctl/host/kernel"
	"labctl/host/session"
	"labctl/host/targets"
	"labctl/host/vm/accel"
	"labctl/host/vm/qemu"
)

// finding is one line of the doctor's.
type finding struct {
	What   string `json:"what"`
	OK     bool   `json:"ok"`
	Seen   string `json:"seen"`
	Remedy string `json:"remedy,omitempty"`
}

// wantDiskMB is room for the kernels of both architectures, u-root and runs.
const wantDiskMB = 2048

func (a *app) doctorCmd() *cobra.Command {
	var asJSON, fresh bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host can do, and what it lacks",
		Long: `Look at all that labctl needs of this host. Acceleration is proved by a trial
guest, never believed from a file in /dev; the verdict is kept until QEMU, the
host's kernel or its boot changes. Exit status 3 when something is lacking.`,
		Example: "  labctl doctor\n  labctl doctor --fresh --json",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			all := a.examine(c.Context(), fresh)
			lacks := 0
			for _, f := range all {
				if !f.OK {
					lacks++
				}
			}
			if asJSON {
				if err := a.printJSON(all); err != nil {
					return err
				}
			} else {
				a.printFindings(all)
			}
			if lacks > 0 {
				return fmt.Errorf("%w: %d of %d", kernel.ErrHostLacks, lacks, len(all))
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&fresh, "fresh", false, "try acceleration again instead of using the kept verdict")
	return c
}

func (a *app) printFindings(all []finding) {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, f := range all {
		mark := "ok"
		if !f.OK {
			mark = "LACKS"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", mark, f.What, f.Seen)
		if f.Remedy != "" {
			fmt.Fprintf(w, "\t\t-> %s\n", f.Remedy)
		}
	}
	w.Flush()
}

// examine looks at everything, cheap things first. Nothing found stops it.
func (a *app) examine(ctx context.Context, fresh bool) []finding {
	var all []finding
	haveQEMU := map[string]bool{}
	for _, t := range targets.All {
		if _, done := haveQEMU[t.Binary]; done {
			continue
		}
		f := finding{What: t.Binary}
		v, err := qemu.Version(t.Binary)
		var missing *qemu.NotFoundError
		switch {
		case err == nil:
			f.OK, f.Seen = true, "version "+v+without(t.Binary)
		case errors.As(err, &missing):
			f.Seen, f.Remedy = "not found", "on Debian: apt-get install "+t.Package
		default:
			f.Seen, f.Remedy = err.Error(), "on Debian: apt-get install --reinstall "+t.Package
		}
		haveQEMU[t.Binary] = f.OK
		all = append(all, f)
	}
	host := targets.Host()
	if haveQEMU[host.Binary] {
		f := finding{What: "acceleration", OK: true}
		start := time.Now()
		verdict := accel.Best
		if fresh {
			verdict = accel.Fresh
		}
		v, err := verdict(ctx, host.Binary, host.Arch)
		if err != nil {
			f.OK, f.Seen = false, err.Error()
		} else {
			f.Seen = fmt.Sprintf("%s: %s (%.1f s)", v.Accel, v.Reason, time.Since(start).Seconds())
		}
		all = append(all, f)
	}
	all = append(all, goFinding(), aptFinding(ctx))

	env, err := a.env()
	if err != nil {
		return append(all, finding{What: "cache", Seen: err.Error()})
	}
	return append(all, diskFinding(env), kernelFinding(env))
}

// without names the machines that this QEMU is too old for. That is no shortfall:
// everything else works.
func without(binary string) string {
	said := ""
	for _, t := range targets.All {
		if t.Binary != binary || t.Since == "" {
			continue
		}
		if known, err := qemu.HasMachine(binary, t.Machine); err == nil && !known {
			said += fmt.Sprintf("; no %s, which came with QEMU %s", t.Name, t.Since)
		}
	}
	return said
}

func goFinding() finding {
	f := finding{What: "go"}
	out, err := exec.Command("go", "env", "GOVERSION").Output()
	if err != nil {
		f.Seen, f.Remedy = "not found", "install Go: guest programs are built with it"
		return f
	}
	f.OK, f.Seen = true, strings.TrimSpace(string(out))
	return f
}

func aptFinding(ctx context.Context) finding {
	f := finding{What: "kernel downloads"}
	m, err := kernel.Mirror(ctx)
	if err != nil {
		f.Seen, f.Remedy = err.Error(), "give a kernel by its path: --kernel ./bzImage"
		return f
	}
	f.OK, f.Seen = true, "apt, from "+m
	return f
}

func diskFinding(env session.Env) finding {
	f := finding{What: "disk"}
	var st unix.Statfs_t
	if err := unix.Statfs(env.Cache.Dir(), &st); err != nil {
		f.Seen = err.Error()
		return f
	}
	mb := int64(st.Bavail) * st.Bsize >> 20
	f.OK = mb >= wantDiskMB
	f.Seen = fmt.Sprintf("%d MB free in %s", mb, env.Cache.Dir())
	if !f.OK {
		f.Remedy = fmt.Sprintf("free %d MB there, or set LABCTL_CACHE to another folder", wantDiskMB-mb)
	}
	return f
}

func kernelFinding(env session.Env) finding {
	f := finding{What: "cached kernels"}
	list, err := env.Cache.List()
	if err != nil {
		f.Seen = err.Error()
		return f
	}
	f.OK = true // the first boot pulls one
	f.Seen = "none yet: the first boot pulls one"
	var names []string
	for _, k := range list {
		names = append(names, k.Release)
	}
	if slices.Sort(names); len(names) > 0 {
		f.Seen = strings.Join(names, ", ")
	}
	return f
}
