package tracefs

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"labctl/guest/wire"
)

// setting is one file by which a capture could be bent, and what it has to hold.
type setting struct{ name, text string }

// maxSetting bounds what is read of a setting, in bytes.
const maxSetting = 64 << 10

// settings reads all that decides what the capture records. The lists of tasks
// are left out: the kernel itself adds and takes away in them.
func (r *Capture) settings() (all []setting) {
	buf := make([]byte, maxSetting)
	add := func(root, file string) {
		text, err := readNow(filepath.Join(root, file), buf)
		if err != nil {
			text = err.Error()
		}
		all = append(all, setting{file, text})
	}
	for _, file := range []string{"tracing_on", "trace_options", "trace_clock", "tracing_cpumask", "set_event", "set_event_notrace_pid"} {
		add(r.dir, file)
	}
	if !r.params.PIDOnly {
		add(r.dir, "set_event_pid")
	}
	if r.armed.Tracer != "nop" {
		add(r.dir, "current_tracer")
		add(r.dir, "set_ftrace_filter")
		add(r.dir, "set_ftrace_notrace")
	}
	for _, name := range r.events {
		add(r.dir, "events/"+r.system(name)+"/filter")
		add(r.dir, "events/"+r.system(name)+"/trigger")
	}
	add(r.fs.root, "kprobe_events")
	return all
}

// readNow reads a file with the fewest system calls: each program waits for some forty
// of these, and under emulation what runs for the first time is slow.
func readNow(path string, buf []byte) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	n := 0
	for n < len(buf) {
		m, err := unix.Read(fd, buf[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", err
		}
		if m == 0 {
			break
		}
		n += m
	}
	return string(buf[:n]), nil
}

// Remember has Changed compare with what the capture is set to now; a second call
// does nothing.
func (r *Capture) Remember() error {
	if r.remembered == nil {
		r.remembered = r.settings()
		if len(r.remembered) == 0 || !strings.HasPrefix(r.remembered[0].text, "1") {
			return fmt.Errorf("trace instance %s does not record", r.name)
		}
	}
	return nil
}

// Changed says which settings are not what they were at Remember, at most
// wire.MaxChanged of them, and remembers them as they are now.
func (r *Capture) Changed() (changed []string) {
	now := r.settings()
	for i, was := range r.remembered {
		if is := now[i]; is.text != was.text && len(changed) < wire.MaxChanged {
			changed = append(changed, fmt.Sprintf("%s: %s", is.name, difference(was.text, is.text)))
		}
	}
	r.remembered = now
	return changed
}

// difference shows two texts of a file, by the lines that only one of them has.
func difference(was, is string) string {
	only := func(a, b string) string {
		have := strings.Split(strings.TrimSpace(b), "\n")
		var out []string
		for _, line := range strings.Split(strings.TrimSpace(a), "\n") {
			if !slices.Contains(have, line) {
				out = append(out, line)
			}
		}
		if len(out) == 0 {
			return "nothing"
		}
		return fmt.Sprintf("%q", clip(strings.Join(out, "; "), 160))
	}
	return only(was, is) + " before, " + only(is, was) + " now"
}
