// Command tests runs the module's tests for a figure: how many statements they
// cover, and how fast the fuzz targets run. It runs them under the race detector, and
// finds what only they call.
//
//	go run ./host/tests cover [-all] [-profile FILE] [PACKAGES]
//	go run ./host/tests race [PACKAGES]
//	go run ./host/tests fuzz [-time 10s] [-run REGEXP] [PACKAGES]
//	go run ./host/tests deadcode [PACKAGES]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "tests:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	modes := map[string]func(context.Context, *flag.FlagSet, []string, io.Writer, io.Writer) error{"cover": cover, "race": race, "fuzz": fuzz, "deadcode": deadcode}
	if len(args) == 0 || modes[args[0]] == nil {
		return fmt.Errorf("arguments %q: want cover, race, fuzz or deadcode first", args)
	}
	fs := flag.NewFlagSet("tests "+args[0], flag.ContinueOnError)
	fs.SetOutput(stderr)
	return modes[args[0]](ctx, fs, args[1:], stdout, stderr)
}

// goCommand is a go command.
func goCommand(ctx context.Context, args ...string) *exec.Cmd {
	return command(ctx, append([]string{"go"}, args...)...)
}

// command is a command that is interrupted, not killed, when ctx ends: the go
// command takes the test that it runs with it.
func command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	return cmd
}

// list decodes go list's description of packages, each into a T.
func list[T any](ctx context.Context, stderr io.Writer, args ...string) (all []T, err error) {
	cmd := goCommand(ctx, append([]string{"list"}, args...)...)
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("list packages: %w", err)
	}
	for d := json.NewDecoder(out); ; {
		var p T
		if err = d.Decode(&p); err != nil {
			break
		}
		all = append(all, p)
	}
	if werr := cmd.Wait(); werr != nil {
		return nil, fmt.Errorf("list packages: %w", werr)
	}
	if err != io.EOF {
		return nil, fmt.Errorf("list packages: %w", err)
	}
	return all, nil
}

// packages are those that were asked for, or all.
func packages(fs *flag.FlagSet) []string {
	if fs.NArg() == 0 {
		return []string{"./..."}
	}
	return fs.Args()
}
