// A process and its child. See TASK.md.
package main

import "fmt"

func main() {
	// TODO: start this program again as the child, which gives itself its name.

	// TODO: print the child's PID, and wait for it.
	fmt.Println("child", 0)
}
