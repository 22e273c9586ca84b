package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"labctl/host/lab"
	"labctl/host/lab/runner"
	"labctl/host/lab/show"
	"labctl/host/machine"
	"labctl/host/session"
	"labctl/host/text"
)

func (a *app) labShell(o *labFlags) *cobra.Command {
	var spec machine.Spec
	c := &cobra.Command{
		Use:   "shell ID",
		Short: "Open a shell in a guest that is ready for a lab",
		Long: `Start a machine for a lab, arm its trace and open a shell in it: labprobe, the
guest's commands and the lab's own programs are there. The lab's steps are printed first, so
that they can be done by hand. Without a terminal the shell reads standard input.`,
		Args: oneLab,
		RunE: func(c *cobra.Command, args []string) error {
			l, err := a.find(o, args[0])
			if err != nil {
				return err
			}
			return a.shellFor(c, o, spec, l)
		},
	}
	machineFlags(c, &spec)
	return c
}

func (a *app) shellFor(c *cobra.Command, o *labFlags, spec machine.Spec, l *lab.Lab) error {
	env, err := a.env()
	if err != nil {
		return err
	}
	return a.shell(c.Context(), env, session.ShellOptions{
		Options: session.Options{Name: "lab-" + l.ID, Keep: session.KeepTrouble, Spec: runner.Spec(l, spec)},
		Ready: func(ctx context.Context, s *session.Session) error {
			guide, err := runner.Ready(ctx, s.VM, s.Machine.Kernel, l)
			if err != nil {
				return err
			}
			for _, line := range shellGuide(l, o.lang, guide) {
				fmt.Fprintln(a.stdout, line)
			}
			return nil
		},
	})
}

// shellGuide is what a learner is told at the start.
func shellGuide(l *lab.Lab, lang string, g *runner.Guide) []string {
	say := func(en, ko string) string {
		if lang == "ko" {
			return ko
		}
		return en
	}
	lines := []string{fmt.Sprintf("%s %s", l.ID, show.Clean(l.Title.In(lang))), show.Clean(l.Summary.In(lang)), ""}
	lines = append(lines, say("What the lab runs:", "이 실습이 실행하는 것:"))
	for _, line := range g.Lines {
		lines = append(lines, "  "+text.Line(line, 300))
	}
	for _, s := range g.NotBuilt {
		lines = append(lines, "  "+say("this host has no compiler for step ", "이 호스트에는 다음 단계를 빌드할 컴파일러가 없습니다: ")+text.Line(s, 200))
	}
	if l.Trace.On() {
		lines = append(lines, "", say("The trace is armed; what it has seen:", "추적이 켜져 있습니다. 기록을 보려면:"),
			"  cat "+text.Line(g.Trace, 200))
		for _, m := range g.NotTraced {
			lines = append(lines, "  "+say("not traced: ", "추적하지 못함: ")+text.Line(m, 200))
		}
	}
	return append(lines, "")
}
