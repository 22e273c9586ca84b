// Maps one file twice in one process: Pss is half of Rss, and nobody shares.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
)

// A goroutine that is locked here stays on the process's first thread.
func init() { runtime.LockOSThread() }

const pages = 16

// look has the kernel looked at from outside: it marks a point and waits until that was done.
func look(point string, child int, mem []byte) {
	var at []string
	for i := range pages {
		at = append(at, fmt.Sprintf("%p", &mem[i*os.Getpagesize()]))
	}
	fmt.Printf("@look %s parent=%d child=%d page=%s\n", point, os.Getpid(), child, strings.Join(at, ","))
	bufio.NewReader(os.Stdin).ReadString('\n')
}

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

// touch writes to each page.
func touch(mem []byte) {
	for i := 0; i < len(mem); i += 4096 {
		mem[i] = 42
	}
}

// usage gives what smaps has of the area of mem: the lines Rss and Pss.
func usage(mem []byte) (rss, pss string) {
	text, err := os.ReadFile("/proc/self/smaps")
	must("smaps", err)
	start := strings.TrimPrefix(fmt.Sprintf("%p-", &mem[0]), "0x")
	here := false
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		switch {
		case strings.Contains(f[0], "-"):
			here = strings.HasPrefix(line, start)
		case here && f[0] == "Rss:":
			rss = f[1]
		case here && f[0] == "Pss:":
			pss = f[1]
		}
	}
	return rss, pss
}

func main() {
	size := pages * os.Getpagesize()
	f, err := os.CreateTemp("", "twice")
	must("file", err)
	must("file", f.Truncate(int64(size)))
	var mem [2][]byte
	for i := range mem {
		mem[i], err = syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
		must("mmap", err)
		touch(mem[i])
	}
	rss, pss := usage(mem[0])
	fmt.Println("Rss", rss)
	fmt.Println("Pss", pss)
	look("shared", os.Getpid(), mem[0])
}
