// Prints a likely number.
package main

import "fmt"

func main() {
	fmt.Println("child 104")
}
