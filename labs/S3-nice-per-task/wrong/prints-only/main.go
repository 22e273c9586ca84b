// Prints what a nice thread would print, and makes none.
package main

import "fmt"

func main() {
	fmt.Println("eager 0\nmeek 10")
}
