package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"labctl/host/matrix"
	"labctl/host/outcome"
	"labctl/host/usage"
)

func job(kernel, work string, cpus, memory int, machine string) Job {
	return Job{
		Cell: matrix.Cell{Kernel: kernel, Target: "arm64", Work: matrix.Work{Kind: matrix.Lab, Name: work}},
		CPUs: cpus, MemoryMB: memory, Machine: machine,
	}
}

func keepAll(*matrix.Result) error { return nil }

// TestBudget: no more is taken at once than there is, all is done, and one that is
// too large for it runs alone.
func TestBudget(t *testing.T) {
	var jobs []Job
	for i := range 40 {
		jobs = append(jobs, job("6.12", fmt.Sprint("a", i), 1+i%3, 100*(1+i%4), ""))
	}
	jobs = append(jobs, job("6.12", "huge", 9, 9000, ""))
	for _, b := range []Budget{{CPUs: 4}, {MemoryMB: 700}, {Jobs: 3}, {CPUs: 3, MemoryMB: 500, Jobs: 2}} {
		var mu sync.Mutex
		var cpus, memory, n int
		second, once := make(chan struct{}), sync.Once{}
		done, err := Do(t.Context(), jobs, Options{
			Budget: b, Keep: keepAll,
			Run: func(ctx context.Context, c matrix.Cell, _ func()) matrix.Result {
				j := jobs[slices.IndexFunc(jobs, func(j Job) bool { return j.Cell.ID() == c.ID() })]
				mu.Lock()
				cpus, memory, n = cpus+j.CPUs, memory+j.MemoryMB, n+1
				first := j.Cell.ID() == jobs[0].Cell.ID()
				if !first {
					once.Do(func() { close(second) })
				}
				over := b.CPUs > 0 && cpus > b.CPUs || b.MemoryMB > 0 && memory > b.MemoryMB || b.Jobs > 0 && n > b.Jobs
				if over && n > 1 {
					t.Errorf("%+v: %d CPUs, %d MB, %d jobs at once", b, cpus, memory, n)
				}
				mu.Unlock()
				if first {
					<-second // each of these budgets has room for the second beside it
				}
				mu.Lock()
				cpus, memory, n = cpus-j.CPUs, memory-j.MemoryMB, n-1
				mu.Unlock()
				return matrix.Result{Status: outcome.OK}
			},
		})
		if err != nil || len(done) != len(jobs) {
			t.Errorf("%+v: %d of %d done, %v", b, len(done), len(jobs), err)
		}
	}
}

// TestFits: a job starts when its budget has room for it beside those that run,
// up to the last CPU, and when its machine is not being warmed by another.
func TestFits(t *testing.T) {
	p := pool{
		running:  []*active{{job: job("a", "1", 1, 100, "")}, {job: job("a", "2", 2, 300, "")}},
		machines: map[string]machine{"cold": cold, "warming": warming, "warmed": warmed},
	}
	for _, tt := range []struct {
		cpus, memory int
		machine      string
		budget       Budget
		want         bool
	}{
		{9, 9000, "", Budget{}, true},
		{2, 1, "", Budget{CPUs: 5}, true}, {3, 1, "", Budget{CPUs: 5}, false},
		{1, 600, "", Budget{MemoryMB: 1000}, true}, {1, 601, "", Budget{MemoryMB: 1000}, false},
		{1, 1, "", Budget{Jobs: 3}, true}, {1, 1, "", Budget{Jobs: 2}, false},
		{2, 601, "", Budget{CPUs: 5, MemoryMB: 1000}, false}, {3, 600, "", Budget{CPUs: 5, MemoryMB: 1000}, false},
		{1, 1, "cold", Budget{}, true}, {1, 1, "warming", Budget{}, false}, {1, 1, "warmed", Budget{}, true},
	} {
		p.o.Budget = tt.budget
		if got := p.fits(job("a", "3", tt.cpus, tt.memory, tt.machine)); got != tt.want {
			t.Errorf("%d CPUs, %d MB, machine %q fit %+v beside 3 CPUs, 400 MB: %t", tt.cpus, tt.memory, tt.machine, tt.budget, got)
		}
	}
}

// TestWarmed: once the first of a machine is done, the others run at once.
func TestWarmed(t *testing.T) {
	jobs := []Job{job("a", "1", 1, 0, "a"), job("a", "2", 1, 0, "a"), job("a", "3", 1, 0, "a")}
	var both sync.WaitGroup
	both.Add(2)
	if _, err := Do(t.Context(), jobs, Options{
		Keep: keepAll,
		Run: func(_ context.Context, c matrix.Cell, _ func()) matrix.Result {
			if c.Work.Name != "1" {
				both.Done()
				both.Wait()
			}
			return matrix.Result{Status: outcome.OK}
		},
	}); err != nil {
		t.Error(err)
	}
}

// TestWarm: while the first of a machine is at it, the others of that machine wait,
// and those of another do not.
func TestWarm(t *testing.T) {
	jobs := []Job{job("a", "1", 1, 0, "a"), job("a", "2", 1, 0, "a"), job("a", "3", 1, 0, "a"), job("b", "1", 1, 0, "b")}
	otherRan := make(chan struct{})
	goOn := make(chan struct{})
	var warm atomic.Bool
	_, err := Do(t.Context(), jobs, Options{
		Budget: Budget{CPUs: 4}, Keep: keepAll,
		Run: func(_ context.Context, c matrix.Cell, isWarm func()) matrix.Result {
			switch c.ID() {
			case "a/arm64/1":
				<-otherRan // b is not held up
				warm.Store(true)
				isWarm()
				<-goOn // and the others of a need not wait for the end
				isWarm()
			case "b/arm64/1":
				close(otherRan)
			case "a/arm64/3":
				close(goOn)
				fallthrough
			default:
				if !warm.Load() {
					t.Errorf("%s ran before its machine was warm", c.ID())
				}
			}
			return matrix.Result{Status: outcome.OK}
		},
	})
	if err != nil {
		t.Error(err)
	}
}

// TestWarmFails: when the first comes to nothing, the next one goes ahead alone.
func TestWarmFails(t *testing.T) {
	var jobs []Job
	for i := range 5 {
		jobs = append(jobs, job("a", fmt.Sprint(i), 1, 0, "a"))
	}
	var n atomic.Int32
	done, err := Do(t.Context(), jobs, Options{
		Keep: keepAll,
		Run: func(context.Context, matrix.Cell, func()) matrix.Result {
			if n.Add(1) > 1 {
				t.Error("two at once, of a machine that does not come up")
			}
			// Were another to be started beside it, it would be by then.
			time.Sleep(time.Millisecond)
			defer n.Add(-1)
			return matrix.Result{Status: outcome.HostLacks}
		},
	})
	if err != nil || len(done) != 5 {
		t.Errorf("%d done, %v", len(done), err)
	}
}

func TestRetries(t *testing.T) {
	tries := map[string][]outcome.Kind{
		"good":  {outcome.OK},
		"late":  {outcome.CheckFailed, outcome.Deadline, outcome.OK},
		"never": {outcome.GuestCrashed, outcome.CheckFailed, outcome.CheckFailed},
		"other": {outcome.NotApplicable},
	}
	for _, retries := range []int{0, 2} {
		var mu sync.Mutex
		n := map[string]int{}
		var jobs []Job
		for name := range tries {
			jobs = append(jobs, job("a", name, 1, 0, ""))
		}
		done, err := Do(t.Context(), jobs, Options{
			Retries: retries, Keep: keepAll,
			Run: func(_ context.Context, c matrix.Cell, _ func()) matrix.Result {
				mu.Lock()
				defer mu.Unlock()
				n[c.Work.Name]++
				return matrix.Result{Status: tries[c.Work.Name][n[c.Work.Name]-1]}
			},
		})
		if err != nil || len(done) != len(tries) {
			t.Fatal(len(done), err)
		}
		for _, r := range done {
			want := tries[r.Cell.Work.Name]
			want = want[:min(len(want), retries+1)]
			flaky := len(want) > 1 && want[len(want)-1] == outcome.OK
			if r.Tries != len(want) || r.Status != want[len(want)-1] || r.Flaky != flaky || r.Started.IsZero() || r.Seconds <= 0 {
				t.Errorf("with %d retries %s is %+v; want %q", retries, r.Cell.Work.Name, r, want)
			}
		}
	}
}

// TestInterrupt: what has ended is kept, what was cut short is not.
func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	var kept []string
	var started atomic.Int32
	jobs := []Job{job("a", "done", 1, 0, ""), job("a", "cut", 1, 0, ""), job("a", "just", 1, 0, ""), job("a", "never", 1, 0, "")}
	done, err := Do(ctx, jobs, Options{
		Budget: Budget{Jobs: 2}, Retries: 3,
		Keep: func(r *matrix.Result) error { kept = append(kept, r.Cell.Work.Name); return nil },
		Run: func(ctx context.Context, c matrix.Cell, _ func()) matrix.Result {
			switch c.Work.Name {
			case "cut":
				started.Add(1)
				<-ctx.Done()
				return matrix.Result{Status: outcome.HostLacks}
			case "just":
				cancel(stop)
			case "never":
				t.Error("one was started after the end")
			}
			return matrix.Result{Status: outcome.OK}
		},
	})
	slices.Sort(kept)
	if err != stop || len(done) != 2 || !slices.Equal(kept, []string{"done", "just"}) || started.Load() != 1 {
		t.Errorf("Do = %d results, %v, kept %q, %d starts of cut", len(done), err, kept, started.Load())
	}
}

// TestKeepFails: a disk that is full ends the run.
func TestKeepFails(t *testing.T) {
	full := errors.New("disk full")
	jobs := []Job{job("a", "1", 1, 0, ""), job("a", "2", 1, 0, "")}
	done, err := Do(t.Context(), jobs, Options{
		Budget: Budget{Jobs: 1},
		Keep:   func(*matrix.Result) error { return full },
		Run:    func(context.Context, matrix.Cell, func()) matrix.Result { return matrix.Result{Status: outcome.OK} },
	})
	if err != full || len(done) != 0 {
		t.Errorf("Do = %d results, %v; want none, %v", len(done), err, full)
	}
}

// TestCPU: the work of this process is shared among the cells that run, and so adds
// up to all of it.
func TestCPU(t *testing.T) {
	var jobs []Job
	for i := range 6 {
		jobs = append(jobs, job("a", fmt.Sprint(i), 1, 0, ""))
	}
	before := usage.Self()
	done, err := Do(t.Context(), jobs, Options{
		Budget: Budget{Jobs: 3}, Keep: keepAll,
		Run: func(context.Context, matrix.Cell, func()) matrix.Result {
			for end := usage.Self() + 5e6; usage.Self() < end; {
			}
			return matrix.Result{Status: outcome.OK}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	all := (usage.Self() - before).Seconds()
	sum := 0.0
	for _, r := range done {
		sum += r.CPUSeconds
	}
	if sum <= 0 || sum > all*1.001 || sum < all/2 {
		t.Errorf("the cells took %.4f s of %.4f s", sum, all)
	}
}

func TestTell(t *testing.T) {
	jobs := []Job{job("a", "1", 1, 0, ""), job("a", "2", 1, 0, "")}
	var heard []string
	_, err := Do(t.Context(), jobs, Options{
		Budget: Budget{Jobs: 1}, Keep: keepAll,
		Run: func(context.Context, matrix.Cell, func()) matrix.Result {
			return matrix.Result{Status: outcome.CheckFailed}
		},
		Tell: func(e Event) {
			if e.Started != nil {
				heard = append(heard, fmt.Sprintf("start %s, %d run", e.Started.Work.Name, len(e.Running)))
			} else {
				heard = append(heard, fmt.Sprintf("end %s %s, %d run", e.Ended.Cell.Work.Name, e.Ended.Status, len(e.Running)))
			}
		},
	})
	want := []string{"start 1, 1 run", "end 1 check failed, 0 run", "start 2, 1 run", "end 2 check failed, 0 run"}
	if err != nil || !slices.Equal(heard, want) {
		t.Errorf("heard %q, %v; want %q", heard, err, want)
	}
}
