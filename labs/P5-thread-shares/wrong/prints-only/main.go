// Prints the right lines and goes nowhere.
package main

import "fmt"

func main() { fmt.Println("loner /proc\nmain /\ng 3") }
