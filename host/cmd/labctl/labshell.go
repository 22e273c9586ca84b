package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"labctl/guest/wire"
	"labctl/host/lab"
	"labctl/host/lab/runner"
	"labctl/host/lab/show"
	"labctl/host/machine"
	"labctl/host/record"
	"labctl/host/text"
	"labctl/host/vm"
	"labctl/host/vm/agent"
)

func (a *app) labShell(o *labFlags) *cobra.Command {
	var spec machine.Spec
	c := &cobra.Command{
		Use:   "shell ID",
		Short: "Open a shell in a guest that is ready for a lab",
		Long: `Start a machine for a lab, arm its trace and open a shell in it: labprobe, u-root's
commands and the lab's own programs are there. What the lab does, step by step, is printed first, so
that it can be done by hand. Without a terminal the shell reads standard input.`,
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

func (a *app) shellFor(c *cobra.Command, o *labFlags, spec machine.Spec, l *lab.Lab) (err error) {
	env, err := a.env()
	if err != nil {
		return err
	}
	spec.Commands = true
	m, err := machine.Prepare(c.Context(), env, runner.Spec(l, spec))
	if err != nil {
		return err
	}
	a.say(fmt.Sprintf("starting %s on %s (%s)", m.Kernel, m.Target.Name, m.Verdict.Accel))
	v, err := m.Boot(c.Context(), env, record.Dir{}, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	guide, err := runner.Ready(v.Context(), v, m.Kernel, l)
	if err != nil {
		return v.Why(err)
	}
	for _, line := range shellGuide(l, o.lang, guide) {
		fmt.Fprintln(a.stdout, line)
	}
	p := wire.ExecParams{Argv: []string{shell}, Dir: "/"}
	in, isFile := a.stdin.(*os.File)
	var res wire.ExecResult
	if isFile && isTerminal(a.stdin) && isTerminal(a.stdout) {
		res, err = a.interactive(v, p, in)
	} else {
		res, err = v.Agent().Exec(v.Context(), p, agent.IO{Stdin: a.stdin, Stdout: a.stdout, Stderr: a.stderr})
	}
	err = v.Why(err)
	switch {
	case errors.Is(err, vm.ErrPoweredOff), errors.Is(err, errLeft):
		return nil
	case err != nil:
		return err
	}
	return statusOf(res)
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
			"  cat "+runner.TraceFile)
		for _, m := range g.NotTraced {
			lines = append(lines, "  "+say("not traced: ", "추적하지 못함: ")+text.Line(m, 200))
		}
	}
	return append(lines, "")
}
