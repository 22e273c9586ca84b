package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"time"
)

// race runs the tests that start no machine under the race detector. Those that do take
// ten times as long with it, and their deadlines are those of a guest.
func race(ctx context.Context, fs *flag.FlagSet, args []string, stdout, stderr io.Writer) error {
	limit := fs.Duration("timeout", 20*time.Minute, "of each package")
	if err := fs.Parse(args); err != nil {
		return err
	}
	pkgs, err := list[pkg](ctx, stderr, append([]string{"-test", "-json=ImportPath,Deps"}, packages(fs)...)...)
	if err != nil {
		return err
	}
	run, left := choose(pkgs, false)
	if len(run) == 0 {
		return fmt.Errorf("of %q all start machines", packages(fs))
	}
	cmd := goCommand(ctx, append([]string{"test", "-race", "-p", "1", "-timeout", limit.String()}, run...)...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run the tests: %w", err)
	}
	if left > 0 {
		fmt.Fprintf(stdout, "packages left out, whose tests start machines: %d\n", left)
	}
	return nil
}
