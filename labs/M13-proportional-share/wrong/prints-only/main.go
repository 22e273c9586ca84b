// Prints what is wanted, and shares nothing.
package main

import "fmt"

func main() {
	fmt.Println("Rss 64")
	fmt.Println("Pss 32")
}
