// Prints two numbers and makes nothing.
package main

import "fmt"

func main() {
	fmt.Println("elder", 390)
	fmt.Println("younger", 305)
}
