// Prints numbers that look right, and works in the first thread.
package main

import "fmt"

var Sink int // exported, so that the loop is kept

func main() {
	for range 400_000_000 {
		Sink++
	}
	fmt.Println("busy 40\nlazy 0\ngroup 41")
}
