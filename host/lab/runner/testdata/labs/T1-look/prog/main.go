// Prog waits for a signal in one thread, and is looked at meanwhile.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	const page = 64 << 10 // the largest there is
	mem, err := syscall.Mmap(-1, 0, 3*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	mem[0], mem[page] = 1, 1
	tid := make(chan int)
	go func() {
		runtime.LockOSThread()
		tid <- syscall.Gettid()
		set := uint64(1 << (syscall.SIGUSR2 - 1))
		ts := syscall.NsecToTimespec(int64(time.Hour))
		syscall.Syscall6(syscall.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&set)), 0, uintptr(unsafe.Pointer(&ts)), 8, 0, 0)
	}()
	at := uintptr(unsafe.Pointer(&mem[0]))
	fmt.Printf("hello\n@look here self=%d waiter=%d stranger=1 page=%d,%d,%#x\n", os.Getpid(), <-tid, at, at+page, at+2*page)
	bufio.NewReader(os.Stdin).ReadString('\n')
	fmt.Println("went on")
	time.Sleep(500 * time.Millisecond) // for who looks where it sleeps
}
