// Command docs writes the pages of docs/ that are made of what machines do.
//
//	go run ./host/docs -labctl bin/labctl -out docs/presets.md
//
// It runs every preset of labctl trace on each kernel and architecture named and
// tabulates what could be armed. It boots machines, and so it is no part of go
// generate: `make presets` calls it.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"labctl/host/scratch"
	"labctl/host/tracer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stderr io.Writer) error {
	f := flag.NewFlagSet("docs", flag.ContinueOnError)
	f.SetOutput(stderr)
	labctl := f.String("labctl", "bin/labctl", "the labctl to run")
	out := f.String("out", "docs/presets.md", "the page to write")
	kernels := f.String("kernels", "5.10,7.2", "kernels, as --kernel takes them")
	arches := f.String("arches", "amd64,arm64", "architectures")
	if err := f.Parse(args); err != nil {
		return err
	}
	var all []tracer.Checks
	for _, k := range strings.Split(*kernels, ",") {
		for _, a := range strings.Split(*arches, ",") {
			c, err := check(ctx, *labctl, k, a, stderr)
			if err != nil {
				return fmt.Errorf("kernel %s on %s: %w", k, a, err)
			}
			all = append(all, c)
		}
	}
	page, err := scratch.Create(filepath.Dir(*out))
	if err != nil {
		return err
	}
	if _, err := io.WriteString(page, presets(all)); err != nil {
		page.Close()
		return err
	}
	return page.Keep(filepath.Base(*out), 0o644)
}

// check runs the presets in one guest.
func check(ctx context.Context, labctl, kernel, arch string, stderr io.Writer) (c tracer.Checks, err error) {
	cmd := exec.CommandContext(ctx, labctl, "trace", "--list-presets", "--check", "--json", "--kernel", kernel, "--arch", arch)
	var stdout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, stderr
	if err := cmd.Run(); err != nil {
		return c, err
	}
	return c, json.Unmarshal(stdout.Bytes(), &c)
}
