// Has a thread add to g, which is the parent's g, too.
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"unsafe"
)

func init() { runtime.LockOSThread() }

var g int64 = 2

func main() {
	done := make(chan bool)
	go func() {
		runtime.LockOSThread()
		g++
		done <- true
	}()
	<-done
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var b [8]byte
	mem.ReadAt(b[:], int64(uintptr(unsafe.Pointer(&g))))
	fmt.Println("child", binary.LittleEndian.Uint64(b[:]))
	fmt.Println("parent", g)
}
