// Loader loads a kernel module, which is at fault then. Symbols that the module lacks
// get their addresses from /proc/kallsyms.
//
//	loader FILE          in the main thread
//	loader thread FILE   in another thread, while the main one waits forever
package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) == 3 && os.Args[1] == "thread" {
		go func() {
			runtime.LockOSThread()
			load(os.Args[2])
		}()
		fmt.Println("waiting")
		select {}
	}
	load(os.Args[1])
	fmt.Println("done")
}

// initModule is the number of init_module(2).
var initModule = map[string]uintptr{"amd64": 175, "arm64": 105, "arm": 128}[runtime.GOARCH]

func load(name string) {
	module, err := os.ReadFile(name)
	if err == nil {
		err = resolve(module)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(9)
	}
	params := []byte{0}
	_, _, errno := syscall.Syscall(initModule, uintptr(unsafe.Pointer(&module[0])), uintptr(len(module)), uintptr(unsafe.Pointer(&params[0])))
	if errno != syscall.ECANCELED { // what its init function returns
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
