// Package sample loads traces of real kernels for tests: the ring buffers' pages
// and the kernel's own text of the same events. testdata/record.go tells how
// they were made.
package sample

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"labctl/host/trace/capture"
)

// Sample is one trace instance of one boot.
type Sample struct {
	Name string // "6.12-arm64/sched"
	// Capture is fresh for each call: a test may change it.
	Capture *capture.Capture
	Text    []byte // the instance's trace file, read before the pages
}

// Boots are the kernels and architectures at hand: "5.10-amd64".
func Boots(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir(), "*.tar.zst"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples in %s, %v", dir(), err)
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(filepath.Base(f), ".tar.zst")
	}
	return files
}

// All are the samples of all boots.
func All(t testing.TB) []Sample {
	t.Helper()
	var all []Sample
	for _, boot := range Boots(t) {
		for _, name := range instances(load(t, boot)) {
			all = append(all, Load(t, boot+"/"+name))
		}
	}
	return all
}

// Load makes the sample of a name.
func Load(t testing.TB, name string) Sample {
	t.Helper()
	boot, instance, _ := strings.Cut(name, "/")
	files := load(t, boot)
	c := &capture.Capture{
		Order:       binary.LittleEndian,
		LongSize:    8,
		PageSize:    4096,
		HeaderPage:  files[instance+"/header_page"],
		HeaderEvent: files["header_event"],
		Kallsyms:    files["kallsyms"],
		Printk:      files["printk_formats"],
		Cmdlines:    files[instance+"/saved_cmdlines"],
		Tgids:       files[instance+"/saved_tgids"],
		Clocks:      files[instance+"/trace_clock"],
		Uname:       strings.TrimSpace(string(files["uname"])),
	}
	for _, f := range sorted(files) {
		if system, _, ok := strings.Cut(strings.TrimPrefix(f, "formats/"), "/"); ok && strings.HasPrefix(f, "formats/") {
			c.Formats = append(c.Formats, capture.Format{System: system, Text: files[f]})
		}
	}
	sort.SliceStable(c.Formats, func(i, j int) bool {
		return c.Formats[i].System == "ftrace" && c.Formats[j].System != "ftrace"
	})
	for cpu := 0; ; cpu++ {
		raw, ok := files[fmt.Sprintf("%s/cpu%d.raw", instance, cpu)]
		if !ok {
			break
		}
		c.CPUCount++
		c.CPUs = append(c.CPUs, capture.CPU{ID: cpu, Pages: bytes.NewReader(raw), Size: int64(len(raw)),
			Stats: files[fmt.Sprintf("%s/cpu%d.stats", instance, cpu)]})
	}
	text, ok := files[instance+"/trace"]
	if !ok || c.CPUCount == 0 {
		t.Fatalf("no sample %s; there are %v of %v", name, instances(files), Boots(t))
	}
	return Sample{Name: name, Capture: c, Text: text}
}

func instances(files map[string][]byte) []string {
	var names []string
	for _, f := range sorted(files) {
		if name, ok := strings.CutSuffix(f, "/trace"); ok {
			names = append(names, name)
		}
	}
	return names
}

func sorted(files map[string][]byte) []string {
	names := make([]string, 0, len(files))
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// dir is found from this file, so that tests of any package can load.
func dir() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "testdata")
}

var (
	mu     sync.Mutex
	loaded = map[string]map[string][]byte{}
)

// load unpacks an archive, once. What it returns is shared: not to be changed.
func load(t testing.TB, boot string) map[string][]byte {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	if files, ok := loaded[boot]; ok {
		return files
	}
	files, err := unpack(filepath.Join(dir(), boot+".tar.zst"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no samples of %s; there are %v", boot, Boots(t))
	}
	if err != nil {
		t.Fatalf("unpack samples of %s: %v", boot, err)
	}
	loaded[boot] = files
	return files
}

func unpack(path string) (map[string][]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	files := map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			return nil, err
		}
	}
}
