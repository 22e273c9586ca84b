// Prints numbers and switches to nobody.
package main

import "fmt"

func main() {
	fmt.Println("ping", 100)
	fmt.Println("pong", 100)
}
