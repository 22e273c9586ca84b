package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"labctl/host/doctor"
	"labctl/host/kernel"
)

func (a *app) doctorCmd() *cobra.Command {
	var asJSON, fresh, deep bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check what this host supports and lacks",
		Long: `Check everything that labctl needs from this host. Acceleration is tested with a
trial guest, not inferred from /dev/kvm; the verdict is cached until QEMU, the
host's kernel or its boot changes. The exit status is 3 if something is missing.

With --deep every file of the cache is read and compared with what was stored. What
was made from other files is removed if it has changed, and made again when it is
needed; a kernel is pulled again.`,
		Example: "  labctl doctor\n  labctl doctor --fresh --json\n  labctl doctor --deep",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			all := doctor.Examine(c.Context(), fresh)
			if deep {
				env, err := a.env()
				if err != nil {
					return err
				}
				all = append(all, doctor.Deep(c.Context(), env.Cache, func(k string, p kernel.Progress) { a.progress.Pull("kernel "+k, p) })...)
			}
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
	c.Flags().BoolVar(&fresh, "fresh", false, "test acceleration again instead of using the cached verdict")
	c.Flags().BoolVar(&deep, "deep", false, "read all of the cache, and mend what is damaged")
	return c
}

func (a *app) printFindings(all []doctor.Finding) {
	w := a.table()
	for _, f := range all {
		mark := "ok"
		if !f.OK {
			mark = "LACKS"
		}
		w.Row(mark, f.What, f.Seen)
		if f.Remedy != "" {
			w.Row("", "", "-> "+f.Remedy)
		}
	}
	_ = w.Write(a.stdout) // as all that is printed here
}
