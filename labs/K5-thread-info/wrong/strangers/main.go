// Shows tasks that are not its own: PID 1 and kthreadd sleep, too.
package main

import (
	"bufio"
	"fmt"
	"os"
)

func main() {
	fmt.Println("@look stacks shallow=2 deep=1")
	bufio.NewReader(os.Stdin).ReadString('\n')
}
