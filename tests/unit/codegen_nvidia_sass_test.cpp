// Reading SASS as both disassemblers print it.
#include "codegen/nvidia/Sass.h"
#include <gtest/gtest.h>

namespace quern::nvidia {
namespace {

// A tile loop around two main loops; a spin loop out of line.
constexpr const char *cuobjdumpText = R"(
	code for sm_90
		Function : quern_kernel
	.headerflags	@"EF_CUDA_SM90"
        /*0000*/                   LDC R1, c[0x0][0x28] ;              /* 0x00000a00ff017b82 */
                                                                       /* 0x000fe20000000800 */
        /*0010*/                   LDS.128 R32, [UR5] ;                /* 0x0 */
        /*0020*/                   PRMT R33, R32, R34, R33 ;           /* 0x0 */
        /*0030*/              @!P0 BRA 0x140 ;                         /* 0x0 */
        /*0040*/                   WARPGROUP.ARRIVE ;                  /* 0x0 */
        /*0050*/                   HGMMA.64x16x16.F32.BF16 R24, R32, gdesc[UR4], R24, gsb0 ; /* 0x0 */
        /*0060*/                   HGMMA.64x16x16.F32.BF16 R24, R32, gdesc[UR4], R24, gsb0 ; /* 0x0 */
        /*0070*/                   SHFL.BFLY PT, R3, R2, 0x1, 0x1f ;   /* 0x0 */
        /*0080*/               @P1 BRA 0x20 ;                          /* 0x0 */
        /*0090*/                   HMUL2.BF16_V2 R3, R2, R4 ;          /* 0x0 */
        /*00a0*/                   HGMMA.64x256x16.F32.BF16 R24, R32, gdesc[UR4], R24, gsb0 ; /* 0x0 */
        /*00b0*/                   UIADD3 UR4, UR4, 0x1, URZ ;         /* 0x0 */
        /*00c0*/               @P1 BRA P2, 0x90 ;                      /* 0x0 */
        /*00d0*/               @P3 BRA 0x10 ;                          /* 0x0 */
        /*00e0*/                   EXIT ;                              /* 0x0 */
        /*0140*/                   SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR5], R0 ; /* 0x0 */
        /*0150*/              @!P0 BRA 0x140 ;                         /* 0x0 */
        /*0160*/                   BRA 0x40 ;                          /* 0x0 */
        /*0170*/                   BRA 0x170;                          /* 0x0 */
		Function : other
        /*0000*/                   EXIT ;                              /* 0x0 */
)";

constexpr const char *nvdisasmText = R"(
	.section	.text.kernel,"ax",@progbits
        .global         kernel
.text.kernel:
        /*0000*/                   UMOV UR4, URZ ;
.L_x_1:
        /*0010*/                   LOP3.LUT R0, R0, 0x77777777, RZ, 0xc0, !PT ;
        /*0020*/              @!P0 BRA `(.L_x_0) ;
.L_x_2:
        /*0030*/                   HGMMA.64x96x16.F32 R24, R32, gdesc[UR4], R24, gsb0 ;
        /*0040*/              @!P0 BRA `(.L_x_1) ;
        /*0050*/                   EXIT ;
.L_x_0:
        /*0060*/              @!P0 BRA `(.L_x_0) ;
        /*0070*/                   BRA `(.L_x_2) ;
.L_x_3:
        /*0080*/                   BRA `(.L_x_3);
.L_x_4:
)";

TEST(Sass, InnermostLoopsWithTheirMix) {
  auto loops = mainLoops(cuobjdumpText);
  ASSERT_EQ(loops.size(), 2u);
  EXPECT_EQ(loops[0].function, "quern_kernel");
  EXPECT_EQ(loops[0].first, 0x20);
  EXPECT_EQ(loops[0].last, 0x160) << "the wait's second try, out of line";
  EXPECT_EQ(loops[0].width, 16);
  EXPECT_EQ(loops[0].wgmmas, 2);
  EXPECT_EQ(loops[0].steps(), 0.5);
  EXPECT_EQ(loops[0].instructions, 10);
  EXPECT_EQ(loops[0].of(Pipe::Alu), 1);
  EXPECT_EQ(loops[0].of(Pipe::Shuffle), 1);
  EXPECT_EQ(loops[0].of(Pipe::Control), 4);
  EXPECT_EQ(loops[0].of(Pipe::Sync), 2);
  EXPECT_EQ(loops[0].of(Pipe::Memory), 0) << "the load lies in the outer loop only";
  EXPECT_EQ(loops[0].mnemonics.at("PRMT"), 1);
  EXPECT_EQ(loops[1].width, 256);
  EXPECT_EQ(loops[1].of(Pipe::Fma), 1);
  EXPECT_EQ(loops[1].of(Pipe::Uniform), 1);
}

TEST(Sass, LabelsAreBranchTargets) {
  auto loops = mainLoops(nvdisasmText);
  ASSERT_EQ(loops.size(), 1u);
  EXPECT_EQ(loops[0].function, "kernel");
  EXPECT_EQ(loops[0].first, 0x10);
  EXPECT_EQ(loops[0].last, 0x70);
  EXPECT_EQ(loops[0].instructions, 6);
  EXPECT_EQ(loops[0].width, 96);
  EXPECT_EQ(loops[0].of(Pipe::Alu), 1);
}

TEST(Sass, OtherTextGivesNothing) {
  EXPECT_TRUE(mainLoops("").empty());
  EXPECT_TRUE(mainLoops("/*0000*/ HGMMA ;\n/*zz*/ x\n/*").empty());
  EXPECT_TRUE(mainLoops("Function : f\n/*0000*/ BRA 0x0 ;\n/*0010*/ BRA `(.L_nowhere) ;\n").empty());
}

TEST(Sass, EveryInstructionHasAPipe) {
  EXPECT_EQ(pipeOf("LOP3.LUT"), Pipe::Alu);
  EXPECT_EQ(pipeOf("IMAD.MOV.U32"), Pipe::Fma);
  EXPECT_EQ(pipeOf("R2UR"), Pipe::Uniform);
  EXPECT_EQ(pipeOf("UTMALDG.2D"), Pipe::Memory);
  EXPECT_EQ(pipeOf("SOMETHING"), Pipe::Other);
  EXPECT_EQ(name(Pipe::Shuffle), "shuffle");
  EXPECT_EQ(name(Pipe::Other), "other");
}

} // namespace
} // namespace quern::nvidia
