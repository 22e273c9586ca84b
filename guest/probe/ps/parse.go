package ps

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"labctl/guest/probe/procfs"
)

// parseUptime reads /proc/uptime, "12.34 56.78", in clock ticks.
func parseUptime(text string) (uint64, error) {
	first, _, _ := strings.Cut(text, " ")
	seconds, err := strconv.ParseFloat(first, 64)
	if err != nil || !(seconds >= 0 && seconds < 1e12) {
		return 0, fmt.Errorf("/proc/uptime %.40q: no seconds", text)
	}
	return uint64(seconds * procfs.Hz), nil
}

// parseBootTime reads btime of /proc/stat.
func parseBootTime(text string) (time.Time, error) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "btime "); ok {
			seconds, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			if err != nil {
				return time.Time{}, fmt.Errorf("/proc/stat: %w", err)
			}
			return time.Unix(seconds, 0), nil
		}
	}
	return time.Time{}, fmt.Errorf("/proc/stat: no btime")
}

// pidWidth is the number of digits of the largest pid below pid_max, 5 at least.
func pidWidth(text string) int {
	limit, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		return 5
	}
	return max(5, len(strconv.Itoa(limit-1)))
}

// parsePasswd maps uid to name. Lines of another form are passed over. 0 is root
// without a file, which a guest may lack.
func parsePasswd(text string) map[int]string {
	names := map[int]string{}
	for line := range strings.Lines(text) {
		fields := strings.Split(line, ":")
		if len(fields) < 3 || fields[0] == "" {
			continue
		}
		uid, err := strconv.Atoi(fields[2])
		if _, known := names[uid]; err == nil && !known {
			names[uid] = printable(fields[0])
		}
	}
	if _, known := names[0]; !known {
		names[0] = "root"
	}
	return names
}

// parseUID reads the effective uid of /proc/PID/status: "Uid: real effective saved fs".
func parseUID(status string) (int, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "Uid:"); ok {
			if fields := strings.Fields(rest); len(fields) == 4 {
				return strconv.Atoi(fields[1])
			}
		}
	}
	return 0, fmt.Errorf("no line Uid with four numbers")
}

// statusKB reads "NAME: N kB" of /proc/PID/status and /proc/meminfo; 0 if it is not there.
func statusKB(text, name string) uint64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n
		}
	}
	return 0
}

// parseCmdline joins the arguments, which a zero ends, with blanks.
func parseCmdline(raw []byte) string {
	text := strings.TrimRight(string(raw), "\x00")
	return printable(strings.ReplaceAll(text, "\x00", " "))
}

// driver is a line of /proc/tty/drivers.
type driver struct {
	name     string // below /dev: "ttyS", "pts"
	major    int
	from, to int  // minors
	numbered bool // the device's name ends in its number
}

// parseDrivers reads /proc/tty/drivers: name, device, major, minor or range of
// minors, type. Lines of another form are passed over.
func parseDrivers(text string) []driver {
	var all []driver
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		d := driver{name: printable(strings.TrimPrefix(fields[1], "/dev/"))}
		low, high, ranged := strings.Cut(fields[3], "-")
		if !ranged {
			high = low
		}
		var errs [3]error
		d.major, errs[0] = strconv.Atoi(fields[2])
		d.from, errs[1] = strconv.Atoi(low)
		d.to, errs[2] = strconv.Atoi(high)
		if errs != [3]error{} {
			continue
		}
		// console and tty are single; hvc is a range of "system", and a serial
		// driver with one port still numbers it.
		d.numbered = ranged || !strings.HasPrefix(fields[4], "system")
		all = append(all, d)
	}
	return all
}

// ttyName is the name below /dev of a tty_nr, see new_encode_dev in
// include/linux/kdev_t.h; "?" for none or an unknown one.
func ttyName(drivers []driver, device int) string {
	major := device >> 8 & 0xfff
	minor := device&0xff | device>>12&0xfff00
	if device == 0 {
		return "?"
	}
	for _, d := range drivers {
		if d.major != major || minor < d.from || minor > d.to {
			continue
		}
		if !d.numbered {
			return d.name
		}
		if d.name == "pts" {
			return "pts/" + strconv.Itoa(minor)
		}
		number := minor - d.from
		if d.name == "tty" {
			number = minor // consoles start at minor 1 with tty1
		}
		return d.name + strconv.Itoa(number)
	}
	return "?"
}
