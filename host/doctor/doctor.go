// Package doctor checks that this host has what labctl needs.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"labctl/host/cachedir"
	"labctl/host/kernel"
	"labctl/host/scratch"
	"labctl/host/targets"
	"labctl/host/vm/accel"
	"labctl/host/vm/qemu"
	"labctl/host/vm/warm"
)

// Finding is the result of one check.
type Finding struct {
	What   string `json:"what"`
	OK     bool   `json:"ok"`
	Seen   string `json:"seen"`
	Remedy string `json:"remedy,omitempty"`
}

// wantDiskMB is enough for kernels of two architectures, u-root and runs.
const wantDiskMB = 2048

// Examine runs all checks, cheap ones first, and does not stop at a failed one. If
// fresh is set it tests acceleration again instead of using a cached verdict.
func Examine(ctx context.Context, fresh bool) []Finding {
	var all []Finding
	have := map[string]bool{} // working QEMU binaries
	for _, t := range targets.All {
		if _, done := have[t.Binary]; !done {
			f := qemuFinding(t)
			have[t.Binary] = f.OK
			all = append(all, f)
		}
	}
	if host := targets.Host(); have[host.Binary] {
		all = append(all, accelFinding(ctx, host, fresh))
	}
	all = append(all, goFinding(), aptFinding(ctx))
	cache, err := kernel.Open("")
	if err != nil {
		return append(all, Finding{What: "cache", Seen: err.Error()})
	}
	return append(all, diskFinding(cache), kernelFinding(cache))
}

func qemuFinding(t targets.Target) Finding {
	f := Finding{What: t.Binary}
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
	return f
}

func accelFinding(ctx context.Context, host targets.Target, fresh bool) Finding {
	f := Finding{What: "acceleration"}
	start := time.Now()
	verdict := accel.Best
	if fresh {
		verdict = accel.Fresh
	}
	v, err := verdict(ctx, host.Binary, host.Arch)
	if err != nil {
		f.Seen = err.Error()
		return f
	}
	f.OK, f.Seen = true, fmt.Sprintf("%s: %s (%.1f s)", v.Accel, v.Reason, time.Since(start).Seconds())
	return f
}

// without lists the machines that this QEMU is too old for. That is not a failed
// check: everything else works.
func without(binary string) string {
	older := ""
	for _, t := range targets.All {
		if t.Binary != binary || t.Since == "" {
			continue
		}
		if known, err := qemu.HasMachine(binary, t.Machine); err == nil && !known {
			older += fmt.Sprintf("; no %s, which requires QEMU %s", t.Name, t.Since)
		}
	}
	return older
}

func goFinding() Finding {
	f := Finding{What: "go"}
	out, err := exec.Command("go", "env", "GOVERSION").Output()
	if err != nil {
		f.Seen, f.Remedy = "not found", "install Go: it builds guest programs"
		return f
	}
	f.OK, f.Seen = true, strings.TrimSpace(string(out))
	return f
}

func aptFinding(ctx context.Context) Finding {
	f := Finding{What: "kernel downloads"}
	m, err := kernel.Mirror(ctx)
	if err != nil {
		f.Seen, f.Remedy = err.Error(), "use an image file: --kernel ./bzImage"
		return f
	}
	f.OK, f.Seen = true, "apt, from "+m
	return f
}

// Deep reads every file of the cache, mends what it can, and says what it did.
func Deep(ctx context.Context, cache *kernel.Cache, report func(k string, p kernel.Progress)) []Finding {
	kernels, err := cache.CheckAll(ctx, report)
	all := sound("files of kernels", kernels.Sound, err)
	for _, line := range kernels.Mended {
		all = append(all, Finding{What: "kernel", OK: true, Seen: line})
	}
	for _, err := range kernels.Lost {
		all = append(all, Finding{What: "kernel", Seen: err.Error()})
	}
	for _, part := range []struct{ what, glob string }{
		{"files of initramfs", "initramfs"}, {"files of initramfs", "initramfs/module-*"}, {"built programs", "programs"},
	} {
		dirs, _ := filepath.Glob(filepath.Join(scratch.EscapeGlob(cache.Dir()), part.glob))
		var found cachedir.Sound
		var err error
		for _, dir := range dirs {
			one, oneErr := cachedir.CheckSealed(dir)
			found.Files, found.Bytes = found.Files+one.Files, found.Bytes+one.Bytes
			found.Damaged, err = append(found.Damaged, one.Damaged...), errors.Join(err, oneErr)
		}
		if found.Files > 0 || err != nil {
			all = append(all, sound(part.what, found, err)...)
		}
	}
	store, err := warm.Open(filepath.Join(cache.Dir(), "templates"), 0)
	var templates cachedir.Sound
	if err == nil {
		templates, err = store.CheckAll()
	}
	return append(all, sound("files of templates", templates, err)...)
}

// sound is the findings of one part of the cache.
func sound(what string, s cachedir.Sound, err error) (all []Finding) {
	for _, line := range s.Damaged {
		all = append(all, Finding{What: what, OK: true, Seen: line + ": removed, made again when it is needed"})
	}
	if err != nil {
		all = append(all, Finding{What: what, Seen: err.Error()})
	}
	seen := fmt.Sprintf("%d, %d MB: as they were stored", s.Files, s.Bytes>>20)
	if len(s.Damaged) > 0 {
		seen = fmt.Sprintf("%d, %d MB: %d were damaged", s.Files, s.Bytes>>20, len(s.Damaged))
	}
	return append(all, Finding{What: what, OK: true, Seen: seen})
}

func diskFinding(cache *kernel.Cache) Finding {
	f := Finding{What: "disk"}
	var st unix.Statfs_t
	if err := unix.Statfs(cache.Dir(), &st); err != nil {
		f.Seen = err.Error()
		return f
	}
	mb := int64(st.Bavail) * int64(st.Bsize) >> 20
	f.OK = mb >= wantDiskMB
	f.Seen = fmt.Sprintf("%d MB free in %s", mb, cache.Dir())
	if !f.OK {
		f.Remedy = fmt.Sprintf("free %d MB there, or set LABCTL_CACHE to another directory", wantDiskMB-mb)
	}
	return f
}

func kernelFinding(cache *kernel.Cache) Finding {
	f := Finding{What: "cached kernels"}
	list, err := cache.List()
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
