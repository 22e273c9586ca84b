// Names itself twice: it is one task, and it does not wait in poll.
package main

import (
	"bufio"
	"fmt"
	"os"
)

func main() {
	fmt.Printf("@look stacks shallow=%d deep=%d\n", os.Getpid(), os.Getpid())
	bufio.NewReader(os.Stdin).ReadString('\n')
	fmt.Println("shallow 400 bytes, deep 1400 bytes")
}
