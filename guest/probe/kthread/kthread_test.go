package kthread

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labctl/guest/wire"
)

// tree is a /proc and a /sys in a directory. The tests that a real kernel answers
// run in a guest; these pin what the probe does when the answer is late, odd or
// missing.
type tree struct {
	t    *testing.T
	k    kernel
	next int
}

func newTree(t *testing.T) *tree {
	dir := t.TempDir()
	tr := &tree{t: t, k: kernel{proc: filepath.Join(dir, "proc"), sys: filepath.Join(dir, "sys")}, next: 100}
	tr.put(filepath.Join(tr.k.proc, "2/stat"), stat(2, "kthreadd", 0))
	tr.put(filepath.Join(tr.k.proc, "50/stat"), stat(50, "khungtaskd", 2))
	return tr
}

func (tr *tree) put(path, text string) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tr.t.Error(err)
	}
	// By rename: the probe must not read half a file.
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		tr.t.Error(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		tr.t.Error(err)
	}
}

func (tr *tree) kthread(comm string) (dir string) {
	tr.next++
	dir = filepath.Join(tr.k.proc, fmt.Sprint(tr.next))
	tr.put(filepath.Join(dir, "stat"), stat(tr.next, comm, 2))
	return dir
}

func stat(pid int, comm string, ppid int) string {
	return fmt.Sprintf("%d (%s) S %d 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0 %s\n", pid, comm, ppid, pid, strings.Repeat("0 ", 28))
}

// answer plays the kernel's part of one file: on each new content of path it
// calls act, until the test ends.
func (tr *tree) answer(path string, act func(text string)) {
	last, _ := os.ReadFile(path)
	stop, done := make(chan struct{}), make(chan struct{})
	tr.t.Cleanup(func() { close(stop); <-done })
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			if now, _ := os.ReadFile(path); len(now) > 0 && string(now) != string(last) {
				last = now
				act(string(now))
			}
		}
	}()
}

func (tr *tree) run(params string) (*wire.ProbeResult, error) {
	return run(tr.t.Context(), tr.k, json.RawMessage(params))
}

func (tr *tree) want(path, text string) {
	tr.t.Helper()
	if got, _ := os.ReadFile(path); string(got) != text {
		tr.t.Errorf("%s holds %q; want %q", filepath.Base(path), got, text)
	}
}

func TestHugePages(t *testing.T) {
	tr := newTree(t)
	tr.put(tr.k.thp(), "always [madvise] never\n")
	old := tr.kthread("khugepaged")
	tr.answer(tr.k.thp(), func(text string) {
		switch text {
		case "never":
			os.RemoveAll(old)
		case "always":
			tr.kthread("kworker/0:7")
			young := tr.kthread("kthreadd") // as 5.10 shows it at first
			time.Sleep(30 * time.Millisecond)
			tr.put(filepath.Join(young, "stat"), stat(tr.next, "khugepaged", 2))
		}
	})
	res, err := tr.run("")
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Tasks) != 2 || res.Tasks[0].PID != os.Getpid() {
		t.Fatalf("tasks %+v; want ourselves and one kernel thread", res.Tasks)
	}
	if got, want := res.Tasks[1], (wire.Task{Role: "kthread", Comm: "khugepaged", PID: 103, TID: 103, TGID: 103, PPID: 2}); got != want {
		t.Errorf("kernel thread %+v; want %+v", got, want)
	}
	if got, want := fmt.Sprint(res.Data), "map[before:madvise trigger:thp unrelated:[kworker/0:7]]"; got != want {
		t.Errorf("data %s; want %s", got, want)
	}
	tr.want(tr.k.thp(), "madvise")
}

func TestHugePagesGetTheirSettingBack(t *testing.T) {
	t.Run("khugepaged does not end", func(t *testing.T) {
		tr := newTree(t)
		tr.put(tr.k.thp(), "[always] madvise never\n")
		tr.kthread("khugepaged")
		if res, err := tr.run(`{"timeout_ms":60}`); err == nil || !strings.Contains(err.Error(), "60 ms") {
			t.Errorf("run = %+v, %v; want the deadline's error", res, err)
		}
		tr.want(tr.k.thp(), "always")
	})
	t.Run("khugepaged does not come", func(t *testing.T) {
		tr := newTree(t)
		tr.put(tr.k.thp(), "always madvise [never]\n")
		if res, err := tr.run(`{"timeout_ms":60}`); err == nil || !strings.Contains(err.Error(), "khugepaged") {
			t.Errorf("run = %+v, %v; want an error that names khugepaged", res, err)
		}
		tr.want(tr.k.thp(), "never")
	})
}

func TestSecondCPU(t *testing.T) {
	tr := newTree(t)
	tr.put(tr.k.cpu1(), "0\n")
	tr.answer(tr.k.cpu1(), func(text string) {
		if text == "1" {
			for _, comm := range []string{"ksoftirqd/1", "kworker/1:0-events", "kworker/0:9", "cpuhp/1"} {
				tr.kthread(comm)
			}
		}
	})
	res, err := tr.run("")
	if err != nil {
		t.Fatal(err)
	}
	var comms []string
	for _, task := range res.Tasks[1:] {
		comms = append(comms, task.Comm)
	}
	if got, want := strings.Join(comms, " "), "ksoftirqd/1 kworker/1:0-events cpuhp/1"; got != want {
		t.Errorf("kernel threads %s; want %s", got, want)
	}
	tr.want(tr.k.cpu1(), "0")
}

func TestWorkers(t *testing.T) {
	tr := newTree(t)
	tr.put(tr.k.workers(), "00,0000000c\n")
	tr.answer(tr.k.workers(), func(text string) {
		if text == "4" {
			tr.kthread("kworker/0:3")
			tr.kthread("kworker/u9:0-events_unbound")
		}
	})
	res, err := tr.run(`{"trigger":"kworker"}`)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Tasks) != 2 || res.Tasks[1].Comm != "kworker/u9:0-events_unbound" {
		t.Errorf("tasks %+v; want ourselves and the unbound worker", res.Tasks)
	}
	tr.want(tr.k.workers(), "00,0000000c")

	for text, want := range map[string]string{"1\n": "one CPU", "\n": "no mask", "00,00000010\n": "one CPU", "all\n": "no mask"} {
		tr.put(tr.k.workers(), text)
		if res, err := tr.run(`{"trigger":"kworker"}`); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("mask %q: run = %+v, %v; want an error with %q", text, res, err, want)
		}
	}
}

func TestNoTrigger(t *testing.T) {
	tr := newTree(t)
	tr.put(tr.k.cpu1(), "1\n")
	_, err := tr.run("")
	for _, want := range []string{"transparent_hugepage", "psi=1", "maxcpus=1"} {
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("err = %v; want one line that names %s", err, want)
		}
	}
	for _, params := range []string{`{"trigger":"x"}`, `{"timeout_ms":0}`, `{"timeout_ms":600001}`, `{"x":1}`} {
		if res, err := tr.run(params); err == nil {
			t.Errorf("%s gave %+v; want an error", params, res)
		}
	}
	tr.put(tr.k.cpu1(), "0\n")
	tr.kthread("cpuhp/1")
	if _, err := tr.run(""); err == nil || !strings.Contains(err.Error(), "earlier time") {
		t.Errorf("err = %v; want one that says CPU 1 was online before", err)
	}
}

func TestChosen(t *testing.T) {
	for text, want := range map[string]string{"always [madvise] never\n": "madvise", "[always] never": "always", "": "", "always never": "", "[]": "", "[x": "", "x]": ""} {
		got, err := chosen(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("chosen(%q) = %q, %v; want %q", text, got, err, want)
		}
	}
}

func FuzzChosen(f *testing.F) {
	f.Add("always [madvise] never\n")
	f.Add("[[]]")
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := chosen(text); err == nil && (got == "" || !strings.Contains(text, "["+got+"]")) {
			t.Errorf("chosen(%q) = %q", text, got)
		}
	})
}
