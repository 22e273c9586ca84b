// Says that it is done.
package main

import "fmt"

func main() { fmt.Println("N0=2 N1=2") }
