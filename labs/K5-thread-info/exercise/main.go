// Two threads that sleep, one with more on its kernel stack. See TASK.md.
package main

import "fmt"

func main() {
	// TODO: start two threads, shallow and deep, that sleep in different system calls.
	shallow, deep := 0, 0

	// TODO: mark the point, and wait until the guest was looked at.
	fmt.Println("shallow", shallow, "deep", deep)
}
