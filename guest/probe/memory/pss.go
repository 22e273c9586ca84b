package memory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"labctl/guest/probe"
	"labctl/guest/probe/mm"
	"labctl/guest/probe/procfs"

	"golang.org/x/sys/unix"
)

func init() { probe.Register(probe.Probe{Name: "pss", Run: pss}) }

// portions is what smaps says of a process's two areas, in KB.
type portions struct {
	Segment map[string]uint64 `json:"segment"` // of System V shared memory
	Private map[string]uint64 `json:"private"`
}

// holding is what two processes have at one moment.
type holding struct {
	Parent portions          `json:"parent"`
	Child  portions          `json:"child"`
	Row    map[string]uint64 `json:"row"` // of /proc/sysvipc/shm: key, shmid, perms, size, nattch, …
}

// pss has a parent and a child map a segment and pages of the parent's own, touch them one after the other,
// and looks at each moment at what smaps says of both.
var pss = staged("pss", "shmget, shmat and fork; smaps and pagemap of both, /proc/sysvipc/shm", pssOn)

// shared is how many pages the segment and the private memory have.
const sharedPages = 8

func pssOn(ctx context.Context, st *stage) (err error) {
	size := sharedPages * os.Getpagesize()
	id, err := unix.SysvShmGet(0, size, 0o640|unix.IPC_CREAT)
	if err != nil {
		return fmt.Errorf("shmget: %w", err)
	}
	defer func() {
		_, rerr := unix.SysvShmCtl(id, unix.IPC_RMID, nil)
		err = errors.Join(err, rerr)
	}()
	segment, err := unix.SysvShmAttach(id, 0, 0)
	if err != nil {
		return fmt.Errorf("shmat: %w", err)
	}
	defer func() { err = errors.Join(err, unix.SysvShmDetach(segment)) }()
	private, err := st.pages(sharedPages, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	fill(segment)
	fill(private)

	s, err := newScript("child")
	if err != nil {
		return err
	}
	at := s.prog.Const(mm.Addr(segment))
	acts := []int{s.act(), s.act()}
	s.read(at, sharedPages)
	acts = append(acts, s.act())
	s.write(s.prog.Const(mm.Addr(private)), sharedPages, 99)
	acts = append(acts, s.act())
	detached := s.prog.Syscall(unix.SYS_SHMDT, at)
	if err := st.spawn(s, forked); err != nil {
		return err
	}
	child := s.child.TID
	point := map[string][]int64{"parent": {int64(st.self.PID)}, "child": {int64(child)}, "segment": said(segment), "private": said(private)}
	moments := map[string]holding{}
	st.data["moments"] = moments
	for i, name := range []string{"forked", "touched", "written", "detached"} {
		if err := s.play(ctx, acts[i]); err != nil {
			return err
		}
		var h holding
		if h.Parent, err = portionsOf(st.self.PID, segment, private); err != nil {
			return err
		}
		if h.Child, err = portionsOf(child, segment, private); err != nil {
			return err
		}
		if h.Row, err = shmRow(id); err != nil {
			return err
		}
		moments[name] = h
		if name == "touched" {
			pages, err := look(st.self.PID, segment)
			if err != nil {
				return err
			}
			st.data["pages"] = pages
		}
		if err := probe.Look(name, point); err != nil {
			return err
		}
	}
	if _, err := s.prog.Result(detached); err != nil {
		return fmt.Errorf("shmdt in the child: %w", err)
	}
	st.data["segment_kb"] = size >> 10
	st.data["pids"] = map[string]int{"parent": st.self.PID, "child": child}
	return nil
}

// portionsOf reads smaps. An area that is not there has nothing.
func portionsOf(pid int, segment, private []byte) (p portions, err error) {
	all, err := mm.Smaps(pid)
	if err != nil {
		return p, err
	}
	of := func(b []byte) map[string]uint64 {
		kb := map[string]uint64{"Size": 0, "Rss": 0, "Pss": 0, "Shared_Dirty": 0, "Private_Dirty": 0}
		at := uint64(mm.Addr(b))
		for _, u := range all {
			if u.Start <= at && at < u.End {
				for name := range kb {
					kb[name] = u.KB[name]
				}
			}
		}
		return kb
	}
	return portions{Segment: of(segment), Private: of(private)}, nil
}

// shmRow is the row of /proc/sysvipc/shm, which ipcs -m prints, of a segment.
func shmRow(id int) (map[string]uint64, error) {
	const path = "/proc/sysvipc/shm"
	text, err := procfs.ReadFile(path)
	if err != nil {
		return nil, err
	}
	row, ok := parseShm(string(text), id)
	if !ok {
		return nil, fmt.Errorf("%s: no row of segment %d", path, id)
	}
	return row, nil
}

// parseShm reads the row of a segment by the names in the head. perms is octal there. What is no
// number is left out.
func parseShm(text string, id int) (map[string]uint64, bool) {
	lines := strings.Split(text, "\n")
	names := strings.Fields(lines[0])
	column := slices.Index(names, "shmid")
	for _, line := range lines[1:] {
		words := strings.Fields(line)
		if column < 0 || len(words) != len(names) || words[column] != strconv.Itoa(id) {
			continue
		}
		row := map[string]uint64{}
		for i, name := range names {
			base := 10
			if name == "perms" {
				base = 8
			}
			if n, err := strconv.ParseUint(words[i], base, 64); err == nil {
				row[name] = n
			}
		}
		return row, true
	}
	return nil, false
}
