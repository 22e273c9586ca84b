// Record makes one archive of samples, in the guest whose kernel it is of:
//
//	labctl exec --arch arm64 --kernel 6.12 --get out.tar.zst:6.12-arm64.tar.zst -- ./record.go out.tar.zst
//
// record.sh beside it makes all of them. An archive holds several trace
// instances of one boot, each with the ring buffers' pages and the kernel's own
// text of them, and what is needed to decode the pages: the formats of the
// events that are in the text, and of kallsyms what the text names.
package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"

	"labctl/host/arch"
	"labctl/host/kernel"
	"labctl/host/kernel/ctype"
	"labctl/host/trace/creation"
)

const root = "/sys/kernel/tracing"

// instance is one trace instance, or the top one when top is set: kernels up to
// 6.10 have function_graph only there.
type instance struct {
	name    string
	top     bool
	kb      int
	events  []string // globs below events/
	options []string // "stacktrace", "!markers"
	files   map[string]string
}

var instances = []instance{
	{name: "creation", kb: 512, options: []string{"stacktrace"},
		events: []string{"labctl/clone", "labctl/kthread_request", "sched/sched_process_*", "task/*"}},
	{name: "sched", kb: 8, options: []string{"stacktrace"}, events: []string{"sched/sched_switch", "sched/sched_w*", "signal/*"}},
	{name: "kmem", kb: 8, events: []string{"kmem/*", "exceptions/*", "mmap/*", "vmalloc/*", "maple_tree/*"}},
	{name: "irq", kb: 8, events: []string{"irq/*", "irq_vectors/*", "ipi/*", "timer/*", "workqueue/*", "rcu/*"}},
	{name: "syscalls", kb: 8, options: []string{"userstacktrace"}, events: []string{"syscalls/*", "raw_syscalls/*"}},
	{name: "io", kb: 8, events: []string{"filelock/*", "filemap/*", "writeback/*", "block/*", "net/*", "skb/*", "sock/*", "tcp/*", "udp/*", "qdisc/*", "napi/*", "fib/*", "neigh/*", "cgroup/*", "module/*", "printk/*", "thp/*", "huge_memory/*", "percpu/*", "power/*", "cpuhp/*", "oom/*", "tlb/*", "io_uring/*", "notifier/*", "initcall/*", "csd/*", "lock/*", "regulator/*", "gpio/*", "swiotlb/*", "migrate/*", "compaction/*", "pagemap/*", "vmscan/*"}},
	{name: "probes", kb: 8, options: []string{"stacktrace"}, events: []string{"labctl/p_*", "labctl/r_*"}},
	{name: "function", kb: 8, options: []string{"func_stack_trace"}, files: map[string]string{
		"set_ftrace_filter": "vfs_read\nvfs_write\nvfs_open\n", "current_tracer": "function"}},
	{name: "function-args", kb: 8, options: []string{"func-args"}, files: map[string]string{
		"set_ftrace_filter": "vfs_read\nvfs_write\nvfs_open\ndo_filp_open\n", "current_tracer": "function"}},
	{name: "graph", top: true, kb: 8, options: []string{"sleep-time", "funcgraph-abstime", "funcgraph-proc", "funcgraph-retval", "funcgraph-args"}, files: map[string]string{
		"max_graph_depth": "6", "set_graph_function": "vfs_open\nvfs_read\n", "current_tracer": "function_graph"}},
}

func (in instance) dir() string {
	if in.top {
		return root
	}
	return filepath.Join(root, "instances", in.name)
}

func main() {
	log.SetFlags(0)
	if len(os.Args) == 2 && os.Args[1] == "child" {
		return
	}
	if len(os.Args) != 2 {
		log.Fatal("record OUT.tar.zst")
	}
	check(record(os.Args[1]))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// try writes one of tracefs's files; not every kernel has or takes all.
func try(file, text string) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		log.Printf("%s: %v", strings.TrimSpace(text), err)
	}
}

func record(out string) error {
	try(root+"/tracing_on", "0")
	probes()
	for _, in := range instances {
		in.arm()
	}
	for _, in := range instances {
		try(in.dir()+"/tracing_on", "1")
	}
	work()
	for _, in := range instances {
		try(in.dir()+"/tracing_on", "0")
	}

	files := map[string][]byte{}
	keep := func(name, path string) {
		if b, err := os.ReadFile(path); err == nil {
			files[name] = b
		}
	}
	for _, in := range instances {
		if in.top && len(in.files) > 0 {
			try(root+"/max_graph_depth", "0")
		}
		keep(in.name+"/saved_cmdlines", root+"/saved_cmdlines")
		keep(in.name+"/trace", in.dir()+"/trace")
		keep(in.name+"/saved_tgids", root+"/saved_tgids")
		keep(in.name+"/trace_clock", in.dir()+"/trace_clock")
		header := in.dir() + "/events/header_page"
		if _, err := os.Stat(header); err != nil {
			header = root + "/events/header_page"
		}
		keep(in.name+"/header_page", header)
		for cpu := range runtime.NumCPU() {
			dir := fmt.Sprintf("%s/per_cpu/cpu%d", in.dir(), cpu)
			raw, err := pages(dir + "/trace_pipe_raw")
			if err != nil {
				return err
			}
			files[fmt.Sprintf("%s/cpu%d.raw", in.name, cpu)] = raw
			keep(fmt.Sprintf("%s/cpu%d.stats", in.name, cpu), dir+"/stats")
		}
	}
	keep("header_event", root+"/events/header_event")
	keep("printk_formats", root+"/printk_formats")
	var words []string
	for name, b := range files {
		if strings.HasSuffix(name, "/trace") {
			words = append(words, regexp.MustCompile(`[A-Za-z_][\w.$]*`).FindAllString(string(b), -1)...)
		}
	}
	slices.Sort(words)
	words = slices.Compact(words)
	if err := formats(files, words); err != nil {
		return err
	}
	syms, err := kallsyms(words)
	if err != nil {
		return err
	}
	files["kallsyms"] = syms
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		return err
	}
	files["uname"] = fmt.Appendf(nil, "Linux %s %s\n", chars(u.Release[:]), chars(u.Machine[:]))
	return pack(out, files)
}

func chars[T int8 | uint8](s []T) string {
	var b []byte
	for _, c := range s {
		if c == 0 {
			break
		}
		b = append(b, byte(c))
	}
	return string(b)
}

func probes() {
	facts := &kernel.Facts{Members: map[string]kernel.Member{}}
	if blob, err := os.ReadFile("/sys/kernel/btf/vmlinux"); err == nil {
		spec, err := ctype.Read(blob)
		check(err)
		for _, name := range []string{"kernel_clone_args", "kthread_create_info"} {
			structs, err := ctype.Structs(spec, name)
			check(err)
			for _, m := range ctype.Members(structs[0], arch.Bits(runtime.GOARCH)) {
				facts.Members[name+"."+m.Name] = kernel.Member{Offset: m.Offset, Size: m.Size}
			}
		}
	}
	wanted, err := creation.Probes(runtime.GOARCH, facts, false)
	check(err)
	for _, p := range wanted {
		for _, a := range p.Alternatives {
			try(root+"/kprobe_events", "p:labctl/"+p.Event+" "+a.Symbol+" "+strings.Join(a.Args, " ")+"\n")
			if _, err := os.Stat(root + "/events/labctl/" + p.Event); err == nil {
				break
			}
		}
	}
	row, ok := arch.Find(runtime.GOARCH)
	if !ok {
		log.Fatalf("no row for architecture %s", runtime.GOARCH)
	}
	arg := row.Entry.Args
	for _, p := range []string{
		// every fetch type: decimal, hexadecimal, character, symbol, bit field,
		// strings, arrays of them, comm, stack
		"p:labctl/p_read vfs_read file=A0:x64 buf=A1:u64 count=A2:s64 low=A2:u8 neg=A2:s8 half=A2:x16 word=A2:u32 bits=A2:b4@2/8",
		"p:labctl/p_open do_sys_openat2 dfd=A0:s32 name=+0(A1):ustring first=+0(A1):u8[4] hex=+0(A1):x16[2] comm=$comm stack=$stack0:x64",
		"p:labctl/p_sym wake_up_process task=A0:x64 at=$stack0:symbol",
		"p:labctl/p_char vfs_write c=A2:char",
		"r:labctl/r_read vfs_read ret=$retval:s64",
		"r:labctl/r_open do_filp_open ret=$retval:x64",
	} {
		for i, a := range arg {
			p = strings.ReplaceAll(p, "A"+strconv.Itoa(i), a)
		}
		try(root+"/kprobe_events", p+"\n")
	}
}

func (in instance) arm() {
	if !in.top {
		check(os.Mkdir(in.dir(), 0o755))
	}
	try(in.dir()+"/tracing_on", "0")
	try(in.dir()+"/buffer_size_kb", strconv.Itoa(in.kb))
	// What did not fit is lost at the end, not at the start; its count is in stats.
	options := append([]string{"sym-offset", "!overwrite", "record-tgid"}, in.options...)
	// 6.1 prints no strings with hash-ptr off; kernels with fields do.
	if _, err := os.Stat(root + "/options/fields"); err == nil {
		options = append(options, "!hash-ptr")
	}
	for _, o := range options {
		name, off := strings.CutPrefix(o, "!")
		value := "1"
		if off {
			value = "0"
		}
		dir := in.dir()
		if _, err := os.Stat(dir + "/options/" + name); err != nil {
			dir = root
		}
		if _, err := os.Stat(dir + "/options/" + name); err == nil {
			try(dir+"/options/"+name, value)
		}
	}
	names := make([]string, 0, len(in.files))
	for n := range in.files {
		names = append(names, n)
	}
	slices.Sort(names)
	slices.Reverse(names) // the filters come before current_tracer
	for _, n := range names {
		for line := range strings.Lines(in.files[n]) {
			try(in.dir()+"/"+n, line)
		}
	}
	for _, glob := range in.events {
		found, _ := filepath.Glob(in.dir() + "/events/" + glob + "/enable")
		for _, f := range found {
			try(f, "1")
		}
	}
}

// work makes some of everything: tasks, files, signals, timers, a packet, marks.
func work() {
	for _, in := range instances {
		if in.name == "probes" {
			try(in.dir()+"/trace_marker", "a mark: \x1b[31m100%\x1b[0m\n")
			try(in.dir()+"/trace_marker", "no newline")
			try(in.dir()+"/trace_marker_raw", "\x2a\x00\x00\x00raw bytes")
		}
	}
	check(exec.Command("/proc/self/exe", "child").Run())
	dir, err := os.MkdirTemp("", "")
	check(err)
	name := filepath.Join(dir, "a file with blanks=1")
	check(os.WriteFile(name, []byte("x"), 0o644))
	for range 3 {
		_, err = os.ReadFile(name)
		check(err)
	}
	check(syscall.Kill(os.Getpid(), syscall.SIGCHLD))
	packet()
	time.Sleep(30 * time.Millisecond)
	try("/sys/kernel/mm/transparent_hugepage/enabled", "always")
	time.Sleep(100 * time.Millisecond)
	check(os.RemoveAll(dir))
}

// pages reads whole sub-buffers until there are none.
func pages(path string) ([]byte, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(fd)
	var out []byte
	buf := make([]byte, 4096)
	for {
		n, err := syscall.Read(fd, buf)
		if n <= 0 || err != nil {
			if err != nil && err != syscall.EAGAIN {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			return out, nil
		}
		out = append(out, buf[:n]...)
	}
}

func formats(files map[string][]byte, words []string) error {
	return filepath.WalkDir(root+"/events", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "format" {
			return err
		}
		event := filepath.Dir(path)
		name, system := filepath.Base(event), filepath.Base(filepath.Dir(event))
		// A system call's event is printed as "sys_read(…)" and "sys_read -> 0x1".
		word := strings.TrimPrefix(strings.Replace(strings.Replace(name, "sys_enter_", "sys_", 1), "sys_exit_", "sys_", 1), " ")
		if _, found := slices.BinarySearch(words, word); !found && system != "ftrace" {
			return nil
		}
		b, err := os.ReadFile(path)
		files["formats/"+system+"/"+name] = b
		return err
	})
}

// always are the ends of the image, and trampolines that the kernel's text hides
// behind "[unknown/kretprobe'd]".
var always = []string{
	"_text", "_stext", "_etext", "_sinittext", "_einittext", "_end",
	"return_to_handler", "kretprobe_trampoline", "__kretprobe_trampoline", "arch_rethook_trampoline",
}

// kallsyms keeps the symbols that are named, the next one after each, which
// tells its size, and those of always.
func kallsyms(words []string) ([]byte, error) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	type symbol struct {
		addr uint64
		line string
		keep bool
	}
	var syms []symbol
	for s := bufio.NewScanner(f); s.Scan(); {
		w := strings.Fields(s.Text())
		addr, err := strconv.ParseUint(w[0], 16, 64)
		if err != nil {
			return nil, err
		}
		_, found := slices.BinarySearch(words, w[2])
		syms = append(syms, symbol{addr, s.Text(), found || slices.Contains(always, w[2])})
	}
	byAddr := make([]int, len(syms))
	for i := range byAddr {
		byAddr[i] = i
	}
	slices.SortStableFunc(byAddr, func(a, b int) int {
		switch {
		case syms[a].addr < syms[b].addr:
			return -1
		case syms[a].addr > syms[b].addr:
			return 1
		}
		return 0
	})
	// All of one address stay together: which of them the kernel prints is the
	// decoder's to find out.
	next := make([]bool, len(syms))
	for i, at := range byAddr {
		if !syms[at].keep {
			continue
		}
		j := i
		for j < len(byAddr) && syms[byAddr[j]].addr == syms[at].addr {
			next[byAddr[j]] = true
			j++
		}
		if j < len(byAddr) {
			next[byAddr[j]] = true
		}
		for j = i; j >= 0 && syms[byAddr[j]].addr == syms[at].addr; j-- {
			next[byAddr[j]] = true
		}
	}
	var out bytes.Buffer
	for i, s := range syms {
		if next[i] {
			out.WriteString(s.line + "\n")
		}
	}
	return out.Bytes(), nil
}

func pack(out string, files map[string][]byte) error {
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	z, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	names := make([]string, 0, len(files))
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		if err := t.WriteHeader(&tar.Header{Name: n, Mode: 0o644, Size: int64(len(files[n]))}); err != nil {
			return err
		}
		if _, err := io.Copy(t, bytes.NewReader(files[n])); err != nil {
			return err
		}
		fmt.Fprintln(os.Stderr, n, len(files[n]))
	}
	return errors.Join(t.Close(), z.Close(), f.Close())
}

// packet sends one to this machine; the guest's lo may be down, which is an event too.
func packet() {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return
	}
	syscall.Sendto(fd, []byte("hello"), 0, &syscall.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}})
	syscall.Close(fd)
}
