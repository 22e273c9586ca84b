package memory

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unsafe"

	"labctl/guest/probe"
	"labctl/guest/probe/mm"
	"labctl/guest/probe/procfs"
	"labctl/guest/rawclone"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "futex", Run: futex}) }

// Operations of the call. Without FUTEX_PRIVATE_FLAG the kernel looks for the waiters of a page,
// whoever has mapped it.
const (
	futexWait = 0
	futexWake = 1
)

// waiters is how many children wait on one word.
const waiters = 3

// waiting is what can be seen of a task that waits on a futex.
type waiting struct {
	TID   int    `json:"tid"`
	State string `json:"state"`
	Wchan string `json:"wchan"` // the kernel function that it sleeps in
	Call  string `json:"call"`  // /proc/TID/syscall: the number of the call, its arguments, sp and pc
}

// wake is a call of FUTEX_WAKE and what came of it.
type wake struct {
	Most   int `json:"most"` // how many it may wake
	Result int `json:"result"`
	Woken  int `json:"woken"` // how many have returned from their wait, since the beginning
}

// futex has children, and a thread, wait on words of shared and of private memory, and wakes them.
var futex = staged("futex", "FUTEX_WAIT in children and a thread, FUTEX_WAKE, /proc/PID/syscall and wchan", futexOn)

// waiter is the script of a task that waits once on a word, and what its call returned.
type waiter struct {
	*script
	addr   uintptr
	result rawclone.Word
}

func newWaiter(role string, addr uintptr) (*waiter, error) {
	s, err := newScript(role)
	if err != nil {
		return nil, err
	}
	s.act()
	w := &waiter{script: s, addr: addr}
	w.result = s.prog.Syscall(unix.SYS_FUTEX, s.prog.Const(addr), s.prog.Const(futexWait), rawclone.Word{}, rawclone.Word{})
	return w, nil
}

// wait has the task call FUTEX_WAIT, and returns when it sleeps in it.
func (w *waiter) wait(ctx context.Context) (waiting, error) {
	if err := w.prog.Post(w.cues[0], 1); err != nil {
		return waiting{}, err
	}
	for {
		seen, there, err := w.look()
		if err != nil || there {
			return seen, err
		}
		select {
		case <-ctx.Done():
			return seen, fmt.Errorf("task %d does not wait on its futex: %w", w.child.TID, context.Cause(ctx))
		case <-time.After(time.Millisecond):
		}
	}
}

// look reports whether the task sleeps in a wait on its word.
func (w *waiter) look() (waiting, bool, error) {
	seen := waiting{TID: w.child.TID}
	stat, err := procfs.ReadStat(fmt.Sprintf("/proc/%d/stat", w.child.TID))
	if err != nil {
		return seen, false, err
	}
	seen.State = string(stat.State)
	call, err := procfs.ReadFile(fmt.Sprintf("/proc/%d/syscall", w.child.TID))
	if err != nil {
		return seen, false, err
	}
	seen.Call = strings.TrimSpace(string(call))
	wchan, err := procfs.ReadFile(fmt.Sprintf("/proc/%d/wchan", w.child.TID))
	if err != nil {
		return seen, false, err
	}
	seen.Wchan = string(wchan)
	words := strings.Fields(seen.Call)
	return seen, seen.State == "S" && len(words) > 1 && words[1] == fmt.Sprintf("%#x", w.addr), nil
}

// returned reports whether the task has come back from its wait.
func (w *waiter) returned() bool { return w.prog.Get(w.done) >= 1 }

// wakeUp calls FUTEX_WAKE, and waits until as many of the waiters as it says, and more in all than
// before, have returned.
func wakeUp(ctx context.Context, addr uintptr, most int, before int, all []*waiter) (wake, error) {
	n, _, errno := unix.Syscall6(unix.SYS_FUTEX, addr, futexWake, uintptr(most), 0, 0, 0)
	if errno != 0 {
		return wake{}, fmt.Errorf("wake: %w", errno)
	}
	k := wake{Most: most, Result: int(n)}
	for {
		k.Woken = 0
		for _, w := range all {
			if w.returned() {
				k.Woken++
			}
		}
		if k.Woken >= before+k.Result {
			return k, nil
		}
		select {
		case <-ctx.Done():
			return k, fmt.Errorf("%d of %d tasks that were woken have returned: %w", k.Woken-before, k.Result, context.Cause(ctx))
		case <-time.After(time.Millisecond):
		}
	}
}

func futexOn(ctx context.Context, st *stage) error {
	shared, err := st.pages(1, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	private, err := st.pages(1, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	shared[8], private[8] = 1, 1 // the pages are there; the words at their beginning are 0
	word := mm.Addr(shared)
	st.data["word"], st.data["private_word"] = word, mm.Addr(private)

	// A value that is not there.
	if _, _, errno := unix.Syscall6(unix.SYS_FUTEX, word, futexWait, 1, 0, 0, 0); errno != 0 {
		st.data["mismatch"] = unix.ErrnoName(errno)
	}

	var all []*waiter
	for range waiters {
		w, err := newWaiter("waiter", word)
		if err != nil {
			return err
		}
		if err := st.spawn(w.script, forked); err != nil {
			return err
		}
		all = append(all, w)
	}
	var tids []int64
	var seen []waiting
	for _, w := range all {
		s, err := w.wait(ctx)
		if err != nil {
			return err
		}
		seen = append(seen, s)
		tids = append(tids, int64(w.child.TID))
	}
	st.data["waiting"] = seen
	pages := []mm.Page{}
	for _, w := range all {
		p, err := mm.Look(w.child.TID, word)
		if err != nil {
			return err
		}
		pages = append(pages, p)
	}
	st.data["pages"] = pages
	point := map[string][]int64{"self": {int64(st.self.TID)}, "waiter": tids, "word": {int64(word)}}
	if err := probe.Look("waiting", point); err != nil {
		return err
	}
	var wakes []wake
	woken := 0
	for i, most := range []int{1, 100, 1} {
		k, err := wakeUp(ctx, word, most, woken, all)
		if err != nil {
			return err
		}
		woken = k.Woken
		wakes = append(wakes, k)
		if i > 0 {
			continue
		}
		var left []int64
		for _, w := range all {
			if !w.returned() {
				left = append(left, int64(w.child.TID))
			}
		}
		if err := probe.Look("woken", map[string][]int64{"left": left, "word": {int64(word)}}); err != nil {
			return err
		}
	}
	st.data["wakes"] = wakes
	var results []int
	for _, w := range all {
		results = append(results, int(int32(w.prog.Get(w.result))))
	}
	st.data["results"] = results
	st.data["holds"] = binary.NativeEndian.Uint32(shared)
	return privateOn(ctx, st, private)
}

// privateOn has a thread and a child wait on a word of private memory.
func privateOn(ctx context.Context, st *stage, private []byte) error {
	addr := mm.Addr(private)
	// The child first: it is the last of the tasks that the probe reports.
	thread, err := newWaiter("thread", addr)
	if err != nil {
		return err
	}
	if err := st.spawn(thread.script, threaded); err != nil {
		return err
	}
	child, err := newWaiter("child", addr)
	if err != nil {
		return err
	}
	if err := st.spawn(child.script, forked); err != nil {
		return err
	}
	for _, w := range []*waiter{thread, child} {
		if _, err := w.wait(ctx); err != nil {
			return err
		}
	}
	k, err := wakeUp(ctx, addr, 100, 0, []*waiter{thread})
	if err != nil {
		return errors.Join(err, child.release(ctx))
	}
	_, asleep, err := child.look()
	st.data["private"] = map[string]any{"wake": k, "thread_returned": thread.returned(), "child_asleep": asleep}
	return errors.Join(err, child.release(ctx))
}

// release ends a wait of a child that nobody else can wake: it changes the word in the child's memory,
// and has the call begun again by a stop and a continuation.
func (w *waiter) release(ctx context.Context) error {
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", w.child.TID), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	word := make([]byte, unsafe.Sizeof(uint32(0)))
	binary.NativeEndian.PutUint32(word, 1)
	_, err = f.WriteAt(word, int64(w.addr))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	for _, sig := range []unix.Signal{unix.SIGSTOP, unix.SIGCONT} {
		if err := unix.Kill(w.child.TID, sig); err != nil {
			return err
		}
		if sig == unix.SIGSTOP {
			if _, err := unix.Wait4(w.child.TID, nil, unix.WUNTRACED, nil); err != nil {
				return err
			}
		}
	}
	return w.prog.Await(ctx, w.done, 1)
}
