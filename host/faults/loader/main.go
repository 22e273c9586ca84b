// Loader loads a kernel module, which is at fault then. Symbols that the module lacks
// get their addresses from /proc/kallsyms. The module is in another file of the program.
//
//	loader          in the main thread
//	loader thread   in another thread, while the main one waits forever
//	loader watch    in the main thread, under a watchdog that waits for 2 s
//	loader quiet    in the main thread, when the console shows emergencies alone
//	loader child    in a process of its own, for whose death in an oops it waits
//	loader stay     in the main thread, which waits forever then
package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// module is the object.
var module []byte

func init() { runtime.LockOSThread() }

func main() {
	how := ""
	if len(os.Args) > 1 {
		how = os.Args[1]
	}
	switch how {
	case "thread":
		go func() {
			runtime.LockOSThread()
			load()
		}()
		fmt.Println("waiting")
		stay()
	case "child":
		c := exec.Command("/proc/self/exe")
		if err := c.Start(); err != nil {
			fmt.Println(err)
			os.Exit(9)
		}
		for tainted()&taintDie == 0 {
			time.Sleep(20 * time.Millisecond)
		}
		c.Process.Kill()
	case "stay":
		load()
		fmt.Println("waiting")
		stay()
	case "watch":
		set("/proc/sys/kernel/watchdog_thresh")
		load()
	case "quiet":
		set("/proc/sys/kernel/printk")
		load()
	default:
		load()
	}
	fmt.Println("done")
}

// stay waits for ever. The Go runtime ends a program whose goroutines all wait for each
// other, which select {} of the last one is.
func stay() {
	for {
		time.Sleep(time.Hour)
	}
}

// set writes a 1.
func set(file string) {
	if err := os.WriteFile(file, []byte("1"), 0); err != nil {
		fmt.Println(err)
		os.Exit(9)
	}
}

const taintDie = 1 << 7 // include/linux/panic.h, TAINT_DIE

func tainted() uint64 {
	b, err := os.ReadFile("/proc/sys/kernel/tainted")
	if err != nil {
		fmt.Println(err)
		os.Exit(9)
	}
	n, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return n
}

// initModule is the number of init_module(2).
var initModule = map[string]uintptr{"amd64": 175, "arm64": 105, "arm": 128}[runtime.GOARCH]

func load() {
	if err := resolve(module); err != nil {
		fmt.Println(err)
		os.Exit(9)
	}
	params := []byte{0}
	_, _, errno := syscall.Syscall(initModule, uintptr(unsafe.Pointer(&module[0])), uintptr(len(module)), uintptr(unsafe.Pointer(&params[0])))
	if errno != syscall.ECANCELED && errno != 0 { // what its init function returns
		fmt.Println("init_module:", errno)
		os.Exit(8)
	}
}

func resolve(module []byte) error {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return err
	}
	all, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		return err
	}
	address := map[string]uint64{}
	for line := range strings.Lines(string(all)) {
		if w := strings.Fields(line); len(w) == 3 {
			address[w[2]], _ = strconv.ParseUint(w[0], 16, 64)
		}
	}
	symbols, err := f.Symbols()
	if err != nil {
		return err
	}
	table := module[f.Section(".symtab").Offset:]
	for i, s := range symbols {
		if s.Section != elf.SHN_UNDEF {
			continue
		}
		at := address[s.Name]
		if at == 0 {
			return fmt.Errorf("the kernel has no %s", s.Name)
		}
		if f.Class == elf.ELFCLASS64 {
			e := table[(i+1)*24:]
			binary.LittleEndian.PutUint16(e[6:], uint16(elf.SHN_ABS))
			binary.LittleEndian.PutUint64(e[8:], at)
		} else {
			e := table[(i+1)*16:]
			binary.LittleEndian.PutUint32(e[4:], uint32(at))
			binary.LittleEndian.PutUint16(e[14:], uint16(elf.SHN_ABS))
		}
	}
	return nil
}
