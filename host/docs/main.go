// Command docs writes the pages of docs/ that are made of what machines do.
//
//	go run ./host/docs -labctl bin/labctl                 # docs/presets.md
//	go run ./host/docs -labctl bin/labctl -page verdicts  # docs/lab-verdicts.md
//
// It runs every preset of labctl trace, or every lab, on each kernel and
// architecture named, and tabulates what came out. It boots machines, and so it is
// no part of go generate.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"

	"labctl/host/scratch"
	"labctl/host/trace"
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
	page := f.String("page", "presets", "what to write: presets, verdicts")
	out := f.String("out", "", "the file to write (default: the page's in docs)")
	kernels := f.String("kernels", "", "kernels, as --kernel takes them (default: the page's)")
	arches := f.String("arches", "amd64,arm64", "architectures")
	boards := f.String("boards", "raspi3b", "boards, for verdicts")
	if err := f.Parse(args); err != nil {
		return err
	}
	var text string
	switch *page {
	case "presets":
		all, err := checked(ctx, *labctl, list(*kernels, "5.10,7.2"), list(*arches, ""), stderr)
		if err != nil {
			return err
		}
		*out, text = cmp.Or(*out, "docs/presets.md"), presets(all)
	case "verdicts":
		all, err := judged(ctx, *labctl, list(*kernels, "5.10,6.1,6.12,7.2"), list(*arches, ""), list(*boards, ""), stderr)
		if err != nil {
			return err
		}
		*out, text = cmp.Or(*out, "docs/lab-verdicts.md"), verdicts(all)
	default:
		return fmt.Errorf("-page %s: want presets or verdicts", *page)
	}
	return scratch.Write(*out, []byte(text), 0o644)
}

// list is a flag's list.
func list(s, none string) []string {
	return strings.FieldsFunc(cmp.Or(s, none), func(r rune) bool { return r == ',' })
}

// checked runs the presets on each kernel and architecture.
func checked(ctx context.Context, labctl string, kernels, arches []string, stderr io.Writer) (all []trace.Checks, err error) {
	for _, k := range kernels {
		for _, a := range arches {
			c, err := check(ctx, labctl, k, a, stderr)
			if err != nil {
				return nil, fmt.Errorf("kernel %s on %s: %w", k, a, err)
			}
			all = append(all, c)
		}
	}
	return all, nil
}

// check runs the presets in one guest.
func check(ctx context.Context, labctl, kernel, arch string, stderr io.Writer) (c trace.Checks, err error) {
	cmd := exec.CommandContext(ctx, labctl, "trace", "--list-presets", "--check", "--json", "--kernel", kernel, "--arch", arch)
	var stdout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, stderr
	if err := cmd.Run(); err != nil {
		return c, err
	}
	return c, json.Unmarshal(stdout.Bytes(), &c)
}
