package mm

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// maxText bounds a maps or smaps file, whose length is that of the process's areas.
const maxText = 4 << 20

// Area is a line of /proc/PID/maps: what the kernel keeps a vm_area_struct for.
type Area struct {
	Start  uint64 `json:"start"`
	End    uint64 `json:"end"`    // exclusive
	Perms  string `json:"perms"`  // "rw-p", "r--s"
	Offset uint64 `json:"offset"` // in the file, in bytes
	Dev    string `json:"dev"`    // "fe:00"
	Inode  uint64 `json:"inode"`
	Path   string `json:"path"` // a file, "[heap]", "[anon:name]" or ""; a newline in it is \012
}

// Maps reads the areas of a process.
func Maps(pid int) ([]Area, error) {
	text, err := MapsText(pid)
	if err != nil {
		return nil, err
	}
	return ParseMaps(text)
}

// MapsText is the areas of a process as the kernel prints them.
func MapsText(pid int) (string, error) { return readText(fmt.Sprintf("/proc/%d/maps", pid)) }

// NUMAMaps is the text of /proc/PID/numa_maps: each area's policy, and on which nodes its pages are.
func NUMAMaps(pid int) (string, error) { return readText(fmt.Sprintf("/proc/%d/numa_maps", pid)) }

// ParseMaps reads the text of a maps file.
func ParseMaps(text string) ([]Area, error) {
	var areas []Area
	for line := range strings.Lines(text) {
		a, err := parseArea(line)
		if err != nil {
			return nil, fmt.Errorf("maps: %w", err)
		}
		areas = append(areas, a)
	}
	return areas, nil
}

// parseArea reads "start-end perms offset dev inode path". The path is the rest of the line,
// blanks and all.
func parseArea(line string) (Area, error) {
	bad := func() (Area, error) { return Area{}, fmt.Errorf("%.80q is no area", line) }
	line = strings.TrimSuffix(line, "\n")
	var word [5]string
	rest := line
	for i := range word {
		word[i], rest, _ = strings.Cut(rest, " ")
	}
	a := Area{Perms: word[1], Dev: word[3], Path: strings.TrimLeft(rest, " ")}
	start, end, _ := strings.Cut(word[0], "-")
	for _, n := range []struct {
		text string
		base int
		into *uint64
	}{{start, 16, &a.Start}, {end, 16, &a.End}, {word[2], 16, &a.Offset}, {word[4], 10, &a.Inode}} {
		v, err := strconv.ParseUint(n.text, n.base, 64)
		if err != nil {
			return bad()
		}
		*n.into = v
	}
	if a.End < a.Start || len(a.Perms) != 4 || a.Dev == "" {
		return bad()
	}
	return a, nil
}

// Find returns the area that an address is in.
func Find(areas []Area, addr uintptr) (Area, bool) {
	for _, a := range areas {
		if a.Start <= uint64(addr) && uint64(addr) < a.End {
			return a, true
		}
	}
	return Area{}, false
}

// Usage is an area of /proc/PID/smaps, or the one of smaps_rollup that stands for all.
type Usage struct {
	Area
	KB      map[string]uint64 `json:"kb"`       // Size, Rss, Pss, Private_Dirty, …
	VMFlags []string          `json:"vm_flags"` // "rd", "wr", "mr", …; none in smaps_rollup
}

// Smaps reads what each area of a process has in memory.
func Smaps(pid int) ([]Usage, error) {
	text, err := readText(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return nil, err
	}
	return ParseSmaps(text)
}

// SmapsAt is the area of smaps that an address is in.
func SmapsAt(pid int, addr uintptr) (Usage, error) {
	all, err := Smaps(pid)
	if err != nil {
		return Usage{}, err
	}
	for _, u := range all {
		if u.Start <= uint64(addr) && uint64(addr) < u.End {
			return u, nil
		}
	}
	return Usage{}, fmt.Errorf("smaps of process %d: nothing at %#x", pid, addr)
}

// Rollup reads the sums over all areas of a process, which the kernel counts for the purpose by
// walking the page tables, unlike the counters behind VmRSS. Kernels without smaps_rollup
// (493b0e9d945f) have the same sums in smaps.
func Rollup(pid int) (Usage, error) {
	text, err := readText(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if errors.Is(err, fs.ErrNotExist) {
		all, err := Smaps(pid)
		return sum(all), err
	}
	if err != nil {
		return Usage{}, err
	}
	all, err := ParseSmaps(text)
	if err == nil && len(all) != 1 {
		err = fmt.Errorf("smaps_rollup of process %d: %d areas; want 1", pid, len(all))
	}
	if err != nil {
		return Usage{}, err
	}
	return all[0], nil
}

// sum is what smaps_rollup would say of areas.
func sum(all []Usage) Usage {
	total := Usage{Area: Area{Path: "[rollup]"}, KB: map[string]uint64{}}
	for _, u := range all {
		for key, kb := range u.KB {
			switch key {
			case "Size", "KernelPageSize", "MMUPageSize": // smaps_rollup has none of these
			default:
				total.KB[key] += kb
			}
		}
	}
	return total
}

// ParseSmaps reads the text of smaps or smaps_rollup. Lines with something else than a
// number, VmFlags apart, are passed over, and so are numbers with no unit (THPeligible).
func ParseSmaps(text string) ([]Usage, error) {
	var all []Usage
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		// The header's first colon is that of the device, or of its path.
		if !ok || strings.ContainsAny(key, " -") {
			a, err := parseArea(line)
			if err != nil {
				return nil, fmt.Errorf("smaps: %w", err)
			}
			all = append(all, Usage{Area: a, KB: map[string]uint64{}})
			continue
		}
		if len(all) == 0 {
			return nil, fmt.Errorf("smaps: %.80q before any area", line)
		}
		u := &all[len(all)-1]
		if key == "VmFlags" {
			u.VMFlags = strings.Fields(value)
		} else if kb, ok := parseKB(value); ok {
			u.KB[key] = kb
		}
	}
	return all, nil
}

// Counters reads the lines "Name: N kB" of a file such as /proc/PID/status and
// /proc/meminfo.
func Counters(path string) (map[string]uint64, error) {
	text, err := readText(path)
	if err != nil {
		return nil, err
	}
	return ParseCounters(text), nil
}

// ParseCounters reads such lines, and passes over others.
func ParseCounters(text string) map[string]uint64 {
	counters := map[string]uint64{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		if kb, ok := parseKB(value); ok {
			counters[key] = kb
		}
	}
	return counters
}

func parseKB(s string) (uint64, bool) {
	number, ok := strings.CutSuffix(strings.TrimSpace(s), " kB")
	if !ok {
		return 0, false
	}
	kb, err := strconv.ParseUint(number, 10, 64)
	return kb, err == nil
}

func readText(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxText+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxText {
		return "", fmt.Errorf("%s: longer than %d MB", path, maxText>>20)
	}
	return string(b), nil
}
